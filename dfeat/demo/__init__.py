"""The built-in world: drawn objects with parts, a small latent diffusion model, and two small backbones."""
