#include "objstore/objstore.h"
