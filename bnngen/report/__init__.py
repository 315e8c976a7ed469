# SPDX-License-Identifier: Apache-2.0
"""Tables, plots and pages for readers; the only place that draws."""
