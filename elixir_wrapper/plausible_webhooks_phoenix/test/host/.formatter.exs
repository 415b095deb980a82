[
  locals_without_parens: [
    add: :*,
    belongs_to: :*,
    create: :*,
    field: :*,
    from: :*,
    get: :*,
    has_many: :*,
    has_one: :*,
    pipe_through: :*,
    pipeline: :*,
    plug: :*,
    post: :*,
    schema: :*,
    socket: :*,
    timestamps: :*
  ],
  inputs: ["{mix,.formatter}.exs", "{config,lib,priv}/**/*.{ex,exs}"]
]
