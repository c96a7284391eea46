module clip-runc.dev/bench/zstd_chunked

go 1.24

require github.com/containers/image/v5 v5.36.2
