# A loaded machine, or a sanitizer, is no failure: what is awaited may take its time.
ExUnit.start(assert_receive_timeout: 5_000)
