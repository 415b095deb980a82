defmodule Plausible.Webhooks.Runtime.NativeLibraryTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Runtime.NativeLibrary

  # A stand-in for a module with stubs: what `@on_load` reports is kept by name.
  defmodule Stubs do
    def fail, do: :erlang.nif_error(NativeLibrary.exception(__MODULE__))
  end

  defmodule Unreadable do
  end

  @missing {:error,
            {:load_failed, ~c"Failed to load NIF library: 'libcurl.so.4: cannot open ...'"}}

  test "a library that loads is no error" do
    assert NativeLibrary.check(Native) == :ok
  end

  test "a library that fails does not fail the module, whose stubs say why" do
    path = NativeLibrary.path("plausible_webhooks_nif")
    assert NativeLibrary.loaded(Stubs, path, @missing) == :ok
    assert {:error, text} = NativeLibrary.check(Stubs)
    assert_raise RuntimeError, text, &Stubs.fail/0

    assert NativeLibrary.loaded(Stubs, path, :ok) == :ok
    assert NativeLibrary.check(Stubs) == :ok
    # An upgrade that fails has to leave the version that works in charge.
    assert NativeLibrary.loaded(Stubs, path, @missing) == @missing
    assert NativeLibrary.check(Stubs) == :ok
  end

  test "the text is readable where a folder has a name beyond ASCII" do
    path = NativeLibrary.path("plausible_webhooks_nif")

    for text <- ["no /Größe/x.so", "no /大/x.so"],
        chars <- [:binary.bin_to_list(text), to_charlist(text)] do
      assert NativeLibrary.loaded(Unreadable, path, {:error, {:load_failed, chars}}) == :ok
      assert {:error, said} = NativeLibrary.check(Unreadable)
      assert said =~ text
    end
  end

  test "the text names the library that is missing and its packages" do
    glibc = "'%: cannot open shared object file: No such file or directory'"

    musl =
      "'Error loading shared library %: No such file or directory (needed by /app/priv/x_nif.so)'"

    for {library, debian} <- [
          {"libcurl.so.4", "libcurl4"},
          {"libssl.so.3", "libssl3"},
          {"libcrypto.so.3", "libssl3"},
          {"libsimdjson.so.14", "libsimdjson14"},
          {"libidn2.so.0", "libidn2-0"},
          {"libcares.so.2", "libcares2 or libc-ares2"},
          {"libsqlite3.so.0", "libsqlite3-0"},
          {"libgcc_s.so.1", "libgcc-s1"},
          {"libstdc++.so.6", "libstdc++6"}
        ],
        says <- [glibc, musl] do
      reason = "Failed to load NIF library: " <> String.replace(says, "%", library)
      text = NativeLibrary.describe("/app/priv/x_nif.so", true, reason)

      assert text ==
               "#{library} is missing (Debian, Ubuntu: apt-get install #{debian}; Alpine: apk " <>
                 "add so:#{library}). x_nif.so cannot be loaded: #{reason}"
    end

    odd = "Failed to load NIF library: '/lib/libc.so.6: version `GLIBC_2.38' not found'"
    assert NativeLibrary.describe("/a/x.so", true, odd) == "x.so cannot be loaded: #{odd}"
  end

  test "the text says what to do about a library that was not built" do
    sqlite = NativeLibrary.describe("/a/plausible_webhooks_sqlite.so", false, "...")
    assert sqlite =~ "/a/plausible_webhooks_sqlite.so does not exist"
    assert sqlite =~ "libsqlite3-dev"
    assert NativeLibrary.describe("/a/plausible_webhooks_nif.so", false, "") =~ "compile"
  end
end
