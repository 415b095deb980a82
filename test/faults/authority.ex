defmodule Plausible.Webhooks.Faults.Authority do
  @moduledoc false
  # A certificate authority that issues whatever a row asks for:
  #
  #   names: [...]          alternative names; default the address 127.0.0.1
  #   common_name: text
  #   days: {from, to}      validity, relative to today
  #   key: :rsa (2 048 bits) | {:rsa, bits} | :ec
  #   digest: :sha | :sha256
  #   issuer: :root | :middle | :constrained | :stranger | :self
  #   chain: how often a strange certificate follows
  #   incomplete: true      leaves out what stands between the certificate and the root

  require Record

  @hrl "public_key/include/public_key.hrl"
  for {name, tag} <- [
        tbs: :OTPTBSCertificate,
        validity: :Validity,
        key_info: :OTPSubjectPublicKeyInfo,
        algorithm: :SignatureAlgorithm,
        key_algorithm: :PublicKeyAlgorithm,
        name_attribute: :AttributeTypeAndValue,
        ec_key: :ECPrivateKey,
        rsa_key: :RSAPrivateKey
      ] do
    Record.defrecordp(name, tag, Record.extract(tag, from_lib: @hrl))
  end

  @loopback {:iPAddress, <<127, 0, 0, 1>>}
  # Object identifiers of X.509.
  @common_name {2, 5, 4, 3}
  @basic_constraints {2, 5, 29, 19}
  @key_usage {2, 5, 29, 15}
  @alternative_names {2, 5, 29, 17}
  @name_constraints {2, 5, 29, 30}
  @p256 {1, 2, 840, 10_045, 3, 1, 7}

  def new(dir) do
    root = authority("Root", nil)
    ca_file = Path.join(dir, "root.pem")
    File.write!(ca_file, pem([root.cert]))
    excluded = [{:GeneralSubtree, {:iPAddress, <<127, 0, 0, 0, 255, 0, 0, 0>>}, 0, :asn1_NOVALUE}]

    constraints =
      {:Extension, @name_constraints, true, {:NameConstraints, :asn1_NOVALUE, excluded}}

    # One for all: to make one takes a second.
    %{
      rsa: new_key({:rsa, 2_048}),
      dir: dir,
      ca_file: ca_file,
      root: root,
      middle: authority("Middle", root),
      constrained: authority("Constrained", root, [constraints]),
      stranger: authority("Stranger", nil)
    }
  end

  @doc "The options of `:ssl` for the server that the row asks for."
  def options(authority, options) do
    {wish, options} = Keyword.split(options, ~w(names common_name days key digest issuer
                                                 chain incomplete)a)
    {cert, key, chain} = issue(authority, wish)
    [cert: cert, key: encoded(key), cacerts: chain, log_level: :none] ++ options
  end

  @doc "The same for `openssl s_server`."
  def arguments(authority, name, wish) do
    {cert, key, chain} = issue(authority, wish)
    path = Path.join(authority.dir, "#{name}.pem")
    {type, der} = encoded(key)
    File.write!(path, [:public_key.pem_encode([{type, der, :not_encrypted}]), pem([cert])])
    File.write!(path <> ".chain", pem(chain))

    ["-cert", path, "-key", path] ++
      if(chain == [], do: [], else: ["-cert_chain", path <> ".chain"])
  end

  defp issue(authority, wish) do
    kind = Keyword.get(wish, :key, :ec)
    key = if kind == :rsa, do: authority.rsa, else: new_key(kind)

    issuer =
      case Keyword.get(wish, :issuer, :root) do
        :self -> %{name: name(wish[:common_name] || "Self"), key: key, cert: nil}
        name -> Map.fetch!(authority, name)
      end

    names = Keyword.get(wish, :names, [@loopback])
    {from, to} = Keyword.get(wish, :days, {-1, 30})

    cert =
      sign(
        %{
          subject: name(wish[:common_name] || "Leaf"),
          key: key,
          days: {from, to},
          extensions:
            [{:Extension, @basic_constraints, false, {:BasicConstraints, false, :asn1_NOVALUE}}] ++
              for(_ <- 1..1, names != [], do: {:Extension, @alternative_names, false, names})
        },
        issuer,
        Keyword.get(wish, :digest, :sha256)
      )

    between = if issuer.cert && !wish[:incomplete], do: [issuer.cert], else: []
    strange = List.duplicate(authority.stranger.cert, Keyword.get(wish, :chain, 0))
    {cert, key, between ++ strange}
  end

  defp authority(text, issuer, extensions \\ []) do
    key = new_key(:ec)
    # Two roots of one name would look like a forged signature.
    name = name("#{text} #{System.unique_integer([:positive])}")

    own = [
      {:Extension, @basic_constraints, true, {:BasicConstraints, true, :asn1_NOVALUE}},
      {:Extension, @key_usage, true, [:keyCertSign, :cRLSign]}
    ]

    subject = %{subject: name, key: key, days: {-1, 30}, extensions: own ++ extensions}
    %{name: name, key: key, cert: sign(subject, issuer || %{name: name, key: key}, :sha256)}
  end

  defp sign(subject, issuer, digest) do
    {from, to} = subject.days

    tbs(
      version: :v3,
      serialNumber: System.unique_integer([:positive]),
      signature: signature_algorithm(issuer.key, digest),
      issuer: issuer.name,
      validity: validity(notBefore: day(from), notAfter: day(to)),
      subject: subject.subject,
      subjectPublicKeyInfo: public(subject.key),
      extensions: subject.extensions
    )
    |> :public_key.pkix_sign(issuer.key)
  end

  defp signature_algorithm(rsa_key(), :sha256),
    do: algorithm(algorithm: {1, 2, 840, 113_549, 1, 1, 11}, parameters: :NULL)

  defp signature_algorithm(_ec, :sha256), do: algorithm(algorithm: {1, 2, 840, 10_045, 4, 3, 2})
  defp signature_algorithm(_ec, :sha), do: algorithm(algorithm: {1, 2, 840, 10_045, 4, 1})

  defp public(rsa_key(modulus: modulus, publicExponent: exponent)) do
    key_info(
      algorithm: key_algorithm(algorithm: {1, 2, 840, 113_549, 1, 1, 1}, parameters: :NULL),
      subjectPublicKey: {:RSAPublicKey, modulus, exponent}
    )
  end

  defp public(ec_key(publicKey: point)) do
    key_info(
      algorithm:
        key_algorithm(algorithm: {1, 2, 840, 10_045, 2, 1}, parameters: {:namedCurve, @p256}),
      subjectPublicKey: {:ECPoint, point}
    )
  end

  defp new_key(:ec), do: :public_key.generate_key({:namedCurve, :secp256r1})
  defp new_key({:rsa, bits}), do: :public_key.generate_key({:rsa, bits, 65_537})

  defp encoded(key),
    do: {elem(key, 0), :public_key.der_encode(elem(key, 0), key)}

  defp name(text) do
    {:rdnSequence, [[name_attribute(type: @common_name, value: {:utf8String, text})]]}
  end

  defp day(days) do
    text = Date.utc_today() |> Date.add(days) |> Calendar.strftime("%y%m%d000000Z")
    {:utcTime, String.to_charlist(text)}
  end

  defp pem(certs),
    do: :public_key.pem_encode(for cert <- certs, do: {:Certificate, cert, :not_encrypted})
end
