"""What is rendered: meshes and their files, cameras, lights, attributes of faces."""
