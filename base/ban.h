/* ban - calls that have a safer form in this project.
 * Included before everything else by the compiler's command line. */
#ifndef BASE_BAN_H
#define BASE_BAN_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#pragma GCC poison strcpy strcat sprintf vsprintf gets strtok localtime gmtime ctime asctime atoi atol atoll strncpy
#endif
