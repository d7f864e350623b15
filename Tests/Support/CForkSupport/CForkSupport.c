#include "CForkSupport.h"
