#include "obox/obox.h"
