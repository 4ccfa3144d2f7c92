/* See depth.h. */
#define DEPTH 10
#include "depth.h"
