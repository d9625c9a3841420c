"""The page that `jaxgen --help` prints."""

USAGE = """jaxgen: deep generative models in JAX

  jaxgen train --model=NAME [flags]   train a model, or resume the same command
  jaxgen sample --run=DIR             new images: a grid, a folder of PNGs, .npz (sounds: .wav)
  jaxgen evaluate --run=DIR           numbers on a whole split, beside the baselines
  jaxgen interpolate --run=DIR        walks between latents (VAE, GAN)
  jaxgen complete --run=DIR           fill in missing parts (autoregressive models)
  jaxgen reconstruct --run=DIR        encode and decode images (VAE)
  jaxgen compress --run=DIR           images to a file of as many bits as the NLL (them, too)
  jaxgen decompress --run=DIR         that file back to the same images
  jaxgen list                         the models there are
  jaxgen describe NAME [flags]        parameters, FLOPs, receptive field or latents
  jaxgen prepare DATASET              download and prepare a TFDS data set

Each takes --help; `jaxgen train --model=NAME --help` shows the flags of that model.
--no_compilation_cache, anywhere, leaves compiled programs out of ~/.cache/jaxgen."""
