"""Hide a file bit for bit by syndrome-trellis codes at content-adaptive costs."""
