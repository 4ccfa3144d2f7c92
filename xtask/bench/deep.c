/* See depth.h. */
#define DEPTH 90
#include "depth.h"
