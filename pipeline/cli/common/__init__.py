"""Parts that all commands share: options, output, running stages."""
