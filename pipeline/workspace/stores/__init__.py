"""The places a workspace may lie in: kinds of disks, and object stores with what they refuse."""
