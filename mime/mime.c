#include "mime/mime.h"
