#include "crypt/seal.h"
