// SPDX-License-Identifier: GPL-2.0
/* A live patch whose init fails. */
#include "lab_fix.c"
