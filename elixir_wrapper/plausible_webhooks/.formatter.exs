[
  locals_without_parens: [operation: 1],
  inputs: ["{mix,.formatter}.exs", "{config,lib,mix_compiler,test}/**/*.{ex,exs}"]
]
