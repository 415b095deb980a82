[inputs: ["*.exs", "demo/*.{ex,exs}"]]
