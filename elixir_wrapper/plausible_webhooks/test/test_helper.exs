# A loaded machine, or a sanitizer, is no failure: what is awaited may take its time.
# Those of a host project build releases: script/test includes them. Long ones take minutes at
# the real speed.
ExUnit.start(timeout: 180_000, assert_receive_timeout: 30_000, exclude: [:host, :long])
