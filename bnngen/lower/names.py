# SPDX-License-Identifier: Apache-2.0
"""C names for layers and models, and which names a model may not have.

A model's name becomes files (m.c, m.h, libm.a), a program, targets of make and CMake, and the prefix bnn_m of every
symbol. The sets below are what stands there already; tests/unit/test_lower.py compares them with the runtime.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Files and targets of the generated project, of make and of CMake.
BUILD_WORDS = _words(
    """
    all bnn clean cmakecache cmakefiles cmakelists depend edit_cache gnumakefile help install lib
    list_install_components main makefile memory package rebuild_cache test
    """
)

# m.h is found before <m.h>, as the project's folder is searched first.
HEADER_WORDS = _words(
    """
    aio alloca arm_neon assert byteswap complex ctype dirent dlfcn elf endian err errno error fcntl
    features fenv float fnmatch ftw getopt glob grp iconv inttypes iso646 langinfo libgen limits
    link locale malloc math memory mqueue netdb newlib nl_types poll pthread pwd reent regex sched
    search semaphore setjmp signal spawn stdalign stdarg stdatomic stdbool stddef stdint stdio
    stdlib stdnoreturn string strings syscall sysexits syslog termios tgmath threads time uchar
    unistd utime utmpx values wait wchar wctype wordexp
    """
)

# Of C99 and C++11.
KEYWORDS = _words(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
    class compl const const_cast constexpr continue decltype default delete do double dynamic_cast
    else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct
    switch template this thread_local throw true try typedef typeid typename typeof union unsigned
    using virtual void volatile wchar_t while xor xor_eq
    """
)

# What follows bnn_ or BNN_, up to the next underscore, in the runtime and in what surrounds a model.
RUNTIME_WORDS = _words(
    """
    accepted add affine align apb1 apb2 append assert avgpool bchannels bconcat bconv2d bflatten binarize
    bitplanes bits bmaxpool bnn box bss channels cholesky clamp class cm4 cmd concat conv conv2d cortexm
    count crc32 data dense depthwise e element encode f32 fault features flash float floor frame gather get
    govern governed head high hsi inline isqrt isqrt32 kernel latent learn learner load lookup map max
    maxpool mean min minibatch more move mul narrow neon octet ok operands outline piecewise pll pool
    popcount32 port protocol quad quantize random refused replay requantize round rows runtime s16 s8 scores
    server smlad softmax stack static status steps stm32f4 stm32h7 store sum sums sxtb16 tail thermometer
    trace trained triangle uart unpack verdict wide window word words x64
    """
)


def c_name(name: str) -> str:
    """Turn a layer's name into a part of a C identifier."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "x"
    return f"n{text}" if text[0].isdigit() else text


def model_name(name: str) -> str:
    """Turn a model's name into the C name of the generated project; `_model` is appended to one that is taken."""
    text = c_name(name)
    taken = text in BUILD_WORDS | HEADER_WORDS | KEYWORDS or text.split("_")[0] in RUNTIME_WORDS
    return f"{text}_model" if taken else text
