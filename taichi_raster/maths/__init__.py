"""What the kernels compute with: dual numbers, vectors, elementary functions, triangles."""
