"""The kernels, an idea a file; one set is compiled for each `runtime.layout.Variant`."""
