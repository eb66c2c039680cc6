package shop

import (
	"embed"
	"io/fs"
)

//go:embed manifests/*.yaml
var manifests embed.FS

// Manifests gives the shop's manifests, one file for each service with its
// Service and Deployment, one for the namespace and one for the settings, as
// they would lie in a repository.
func Manifests() fs.FS {
	sub, err := fs.Sub(manifests, "manifests")
	if err != nil {
		return manifests // cannot happen: the directory is embedded above
	}
	return sub
}

// ImageName gives the image of a service without its tag.
func ImageName(service string) string { return "registry.local/shop/" + service }

// BaseTag is the tag of the good builds that the manifests name.
const BaseTag = "1.0.0"

// PublishBase puts the good builds that the manifests name into the registry.
func PublishBase(dir string) error {
	for _, s := range Services() {
		if err := PublishImage(dir, ImageName(s), BaseTag, Behaviour{}); err != nil {
			return err
		}
	}
	return nil
}
