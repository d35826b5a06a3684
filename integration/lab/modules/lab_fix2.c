// SPDX-License-Identifier: GPL-2.0
/* The successor of lab_fix. */
#include "lab_fix.c"
