// Copies an image and compresses its layers as zstd:chunked, as skopeo does:
// zstd_chunked docker://SRC docker://DST.  Both without TLS.
package main

import (
	"context"
	"log"
	"os"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/pkg/compression"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	source := must(alltransports.ParseImageName(os.Args[1]))
	target := must(alltransports.ParseImageName(os.Args[2]))
	format := must(compression.AlgorithmByName("zstd:chunked"))
	anything := signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}
	policy := must(signature.NewPolicyContext(&signature.Policy{Default: anything}))
	plain := types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}
	packed := plain
	packed.CompressionFormat = &format
	must(copy.Image(context.Background(), policy, target, source, &copy.Options{
		SourceCtx:              &plain,
		DestinationCtx:         &packed,
		ForceManifestMIMEType:  "application/vnd.oci.image.manifest.v1+json",
		ForceCompressionFormat: true,
	}))
}
