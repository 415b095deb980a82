#include "webhooks/result.hpp"
