package forecast

import "errors"

// ErrInvalid is the cause of every error about a bad argument or setting; the
// error's text names the argument and its value.
var ErrInvalid = errors.New("invalid argument")
