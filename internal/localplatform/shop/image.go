package shop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

// ErrNoImage says that the registry does not have an image.
var ErrNoImage = errors.New("image pull error")

// Behaviour is how one build of a service behaves. The zero value is a good
// build.
type Behaviour struct {
	// ErrorRate is the share of requests, in [0, 1], that the build itself
	// fails with 500.
	ErrorRate float64 `json:"errorRate,omitempty"`
	// ExtraMS is added to the time of each request, in milliseconds.
	ExtraMS float64 `json:"extraMs,omitempty"`
	// CrashAfterMS, above zero, ends the process that long after its start.
	CrashAfterMS float64 `json:"crashAfterMs,omitempty"`
	// NeverReady keeps the readiness probe failing.
	NeverReady bool `json:"neverReady,omitempty"`
}

// PublishImage puts a build into the registry under DIR/registry, replacing
// one of the same name and tag. Name is the image without its tag, such as
// "registry.local/shop/cart".
func PublishImage(dir, name, tag string, b Behaviour) error {
	file, err := imageFile(rundir.Dir(dir), name+":"+tag)
	if err != nil {
		return err
	}
	if b.ErrorRate < 0 || b.ErrorRate > 1 || b.ExtraMS < 0 || b.CrashAfterMS < 0 {
		return fmt.Errorf("shop: publish image %s:%s: behaviour %+v is out of range", name, tag, b)
	}
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("shop: publish image %s:%s: %w", name, tag, err)
	}
	return rundir.WriteFile(file, data)
}

// PullImage reads a build from the registry. An image that is not there, or
// that does not name a tag, gives [ErrNoImage] with its name.
func PullImage(dir, image string) (Behaviour, error) {
	file, err := imageFile(rundir.Dir(dir), image)
	if err != nil {
		return Behaviour{}, err
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Behaviour{}, fmt.Errorf("shop: %w: %q is not in the registry", ErrNoImage, image)
	}
	if err != nil {
		return Behaviour{}, fmt.Errorf("shop: pull %q: %w", image, err)
	}
	var b Behaviour
	if err := json.Unmarshal(data, &b); err != nil {
		return Behaviour{}, fmt.Errorf("shop: %w: %q is broken: %w", ErrNoImage, image, err)
	}
	return b, nil
}

// imageFile maps an image to its file. Names are checked against the grammar
// of references, which also keeps them inside the registry.
func imageFile(dir rundir.Dir, image string) (string, error) {
	name, tag := image, ""
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		name, tag = image[:i], image[i+1:]
	}
	if tag == "" {
		return "", fmt.Errorf("shop: %w: %q has no tag", ErrNoImage, image)
	}
	part := regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9_])?$`)
	for p := range strings.SplitSeq(name, "/") {
		if !part.MatchString(p) {
			return "", fmt.Errorf("shop: %w: %q is not an image name", ErrNoImage, image)
		}
	}
	if !part.MatchString(tag) || strings.Contains(tag, ":") {
		return "", fmt.Errorf("shop: %w: %q has a bad tag", ErrNoImage, image)
	}
	return dir.Path("registry", filepath.FromSlash(name), tag+".json"), nil
}
