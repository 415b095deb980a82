[inputs: ["{mix,.formatter}.exs", "{config,lib,mix_compiler,test}/**/*.{ex,exs}"]]
