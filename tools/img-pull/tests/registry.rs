//! A real registry, Debian's docker-registry, with skopeo as another client.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod registries;

use std::fs;

use registries::with_registries;
use serde_json::{Value, json};
use testkit::Sandbox;

/// The first digits of the digest of the image's only layer.
fn layer(sandbox: &Sandbox, name: &str) -> String {
    let found = format!("skopeo inspect oci:$STAVE_ROOT/images:{name} | jq -r '.Layers[0]' | cut -c8-19");
    sandbox.sh(&found).ok().trim().to_owned()
}

/// What is said when the image is pulled into an empty store, and once more.
#[track_caller]
fn pulled_twice(sandbox: &Sandbox, short: &str, digest: &str) {
    let pulled = sandbox.sh("img-pull --root fresh localhost:5000/lib/a").exits(0).stderr;
    assert_eq!(
        pulled,
        format!(
            "latest: Pulling from lib/a\n{short}: Pulling fs layer\n{short}: Pull complete\nDigest: {digest}\n\
             Status: Downloaded newer image for localhost:5000/lib/a:latest\n"
        )
    );
    let again = sandbox.sh("img-pull --root fresh localhost:5000/lib/a").exits(0).stderr;
    assert_eq!(
        again,
        format!(
            "latest: Pulling from lib/a\nDigest: {digest}\n\
             Status: Image is up to date for localhost:5000/lib/a:latest\n"
        )
    );
}

#[test]
fn there_and_back() {
    let sandbox = with_registries();
    let short = layer(&sandbox, "localhost:5000/lib/a:latest");
    let pushed = sandbox.sh("img-push localhost:5000/lib/a 2> lines").json();
    let (digest, size) = (pushed["digest"].as_str().unwrap(), &pushed["size"]);
    assert_eq!(
        sandbox.sh("cat lines").ok(),
        format!(
            "The push refers to repository [localhost:5000/lib/a]\n{short}: Preparing\n{short}: Pushed\n\
             latest: digest: {digest} size: {size}\n"
        )
    );
    assert_eq!((&pushed["sent"], &pushed["existing"]), (&json!(2), &json!(0)));
    let again = sandbox.sh("img-push localhost:5000/lib/a 2> lines").json();
    assert_eq!((&again["sent"], &again["existing"]), (&json!(0), &json!(2)));
    assert!(sandbox.sh("cat lines").ok().contains(&format!("\n{short}: Layer already exists\n")));
    let other = sandbox.sh("img-push localhost:5000/lib/a localhost:5000/lib/b").exits(0);
    assert!(other.stderr.contains(&format!("\n{short}: Mounted from lib/a\n")), "{}", other.stderr);
    let uploads = "grep -c 'PUT /v2/lib/b/blobs/uploads/' plain.log || :";
    assert_eq!(sandbox.sh(uploads).ok(), "1\n", "only the configuration was sent");
    // The layer is also mounted from an image that has no name at this registry in the store, but was pushed
    // there.
    sandbox.sh("img-tag localhost:5000/lib/a web; img-rm localhost:5000/lib/a").ok();
    sandbox.sh("img-push -q web localhost:5000/web/a > /dev/null").ok();
    let mounted = sandbox.sh("img-push -q web localhost:5000/web/b").json();
    assert_eq!((&mounted["mounted"], &mounted["sent"]), (&json!(1), &json!(1)), "the configuration is sent");
    let seen = sandbox.sh("skopeo inspect --tls-verify=false docker://localhost:5000/lib/b").json();
    assert_eq!(seen["Digest"], pushed["digest"]);

    pulled_twice(&sandbox, &short, digest);
    let named = sandbox.sh("img-push -q --root fresh localhost:5000/lib/a localhost:5000/lib/c").json();
    assert_eq!(named["mounted"], 1, "what was pulled from a repository is in it");
    sandbox.sh("img-pull -q --root applied --apply localhost:5000/lib/b > /dev/null").ok();
    assert_eq!(sandbox.sh("cat applied/layers/*/etc/name").ok(), "a");
    let by_digest =
        format!("img-pull -q --root digest localhost:5000/lib/a@{digest} | jq -r .image.reference");
    assert_eq!(sandbox.sh(&by_digest).ok(), format!("localhost:5000/lib/a@{digest}\n"));
    let inspected =
        format!("img-inspect --root digest localhost:5000/lib/a@{digest} | jq -r .image.descriptor.digest");
    assert_eq!(sandbox.sh(&inspected).ok().trim(), digest);
    let missing = sandbox.sh("img-pull -q localhost:5000/lib/none").exits(1).stderr;
    assert_eq!(
        missing,
        "img-pull: get http://localhost:5000/v2/lib/none/manifests/latest: 404 Not Found: manifest unknown\n"
    );
}

#[test]
fn what_skopeo_wrote() {
    let sandbox = with_registries();
    for (format, compression) in [("oci", "gzip"), ("v2s2", "gzip"), ("oci", "zstd")] {
        sandbox
            .sh(&format!(
                "skopeo copy -q --dest-tls-verify=false --format {format} --dest-compress-format {compression} \
                    --dest-compress oci:root/images:localhost:5000/lib/a:latest docker://localhost:5000/skopeo:{format}
                rm -rf fresh
                img-pull -q --root fresh localhost:5000/skopeo:{format} | layer-apply --root fresh > /dev/null"
            ))
            .ok();
        assert_eq!(sandbox.sh("cat fresh/layers/*/etc/name").ok(), "a", "{format}");
    }
}

/// Pushes two images and an index of both, as `docker buildx` makes them.
fn push_for_two_platforms(sandbox: &Sandbox) -> Value {
    let index = "
        for arch in amd64 arm64; do
            mkdir -p $arch/etc && printf $arch > $arch/etc/name && tar -C $arch -cf $arch.tar etc
            img-load -q -t localhost/$arch --platform linux/$arch $arch.tar |
                jq -c --arg arch $arch '.image.descriptor + {platform: {os: \"linux\", architecture: $arch}}' >> list
        done
        jq -cs '{schemaVersion: 2, mediaType: \"application/vnd.oci.image.index.v1+json\", manifests: .}' list > index
        digest=$(sha256sum < index | cut -d' ' -f1)
        cp index $STAVE_ROOT/images/blobs/sha256/$digest
        jq -c --arg digest sha256:$digest --argjson size $(stat -c %s index) '.manifests += [{mediaType:
            \"application/vnd.oci.image.index.v1+json\", digest: $digest, size: $size,
            annotations: {\"org.opencontainers.image.ref.name\": \"localhost:5000/multi:1\"}}]' \
            $STAVE_ROOT/images/index.json > changed && cp changed $STAVE_ROOT/images/index.json
        img-push -q localhost:5000/multi:1";
    sandbox.sh(index).json()
}

#[test]
fn an_image_for_several_platforms() {
    let sandbox = with_registries();
    let pushed = push_for_two_platforms(&sandbox);
    assert_eq!(pushed["mediaType"], "application/vnd.oci.image.index.v1+json");
    let raw = sandbox.sh("skopeo inspect --raw --tls-verify=false docker://localhost:5000/multi:1").json();
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
    // The same as Docker's manifest list, made by skopeo.
    sandbox
        .sh("skopeo copy -q --all --format v2s2 --src-tls-verify=false --dest-tls-verify=false \
                docker://localhost:5000/multi:1 docker://localhost:5000/multi:docker")
        .ok();
    let raw =
        sandbox.sh("skopeo inspect --raw --tls-verify=false docker://localhost:5000/multi:docker").json();
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    for tag in ["1", "docker"] {
        for arch in ["amd64", "arm64"] {
            let pull = format!(
                "rm -rf fresh; img-pull -q --root fresh --platform linux/{arch} --apply localhost:5000/multi:{tag}"
            );
            let document = sandbox.sh(&pull).json();
            assert_eq!(document["image"]["configuration"]["architecture"], arch);
            assert_eq!(
                sandbox.sh("cat fresh/layers/*/etc/name").ok(),
                arch,
                "and no other layer was fetched"
            );
        }
        let none =
            sandbox.sh(&format!("img-pull -q --platform linux/s390x localhost:5000/multi:{tag}")).exits(1);
        assert!(
            none.stderr.ends_with("has no image for linux/s390x: it has linux/amd64, linux/arm64\n"),
            "{}",
            none.stderr
        );
    }
    // A store with only one image pushes that one on request. Otherwise it reports what is missing.
    let push = "img-push -q --root fresh localhost:5000/multi:docker localhost:5000";
    let part = sandbox.sh(&format!("{push}/part --platform linux/arm64")).json();
    assert_eq!(part["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(
        sandbox.sh(&format!("{push}/whole")).exits(1).stderr,
        "img-push: push localhost:5000/whole:latest: the store lacks linux/amd64 of it\nhint: `img-pull --all-platforms` fetches \
         the rest; --platform pushes the image for only one platform\n"
    );
    // Each pulled platform is added to the name.
    let more = "img-pull -q --root fresh --platform linux/amd64 localhost:5000/multi:docker";
    assert_eq!(sandbox.sh(more).json()["image"]["configuration"]["architecture"], "amd64");
    let whole = sandbox.sh(&format!("{push}/whole")).json();
    assert_eq!(whole["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    let both = "rm -rf fresh; img-pull -q --root fresh --platform linux/arm64 --platform linux/amd64 localhost:5000/multi:1 &&
        img-push -q --root fresh localhost:5000/multi:1 localhost:5000/both > pushed";
    let document = sandbox.sh(both).json();
    assert_eq!(document["image"]["configuration"]["architecture"], "arm64", "the first of them");
    assert_eq!(sandbox.sh("jq -r .digest pushed").ok().trim(), pushed["digest"].as_str().unwrap());
}

/// An image for two platforms with an attestation, as BuildKit pushes it, and a signature without a platform.
#[test]
fn everything_that_an_index_names() {
    let sandbox = with_registries();
    let index = "
        blobs=$STAVE_ROOT/images/blobs/sha256
        keep() { printf '%s' \"$1\" > blob; digest=$(sha256sum < blob | cut -d' ' -f1); size=$(stat -c %s blob); mv blob $blobs/$digest; }
        for arch in amd64 arm64; do
            mkdir -p $arch && printf $arch > $arch/name && tar -C $arch -cf $arch.tar name
            img-load -q -t localhost/$arch --platform linux/$arch $arch.tar |
                jq -c --arg arch $arch '.image.descriptor + {platform: {os: \"linux\", architecture: $arch}}' >> list
        done
        for statement in attested signed; do
            keep \"{\\\"$statement\\\": true}\"; layer=$digest layer_size=$size
            keep \"{\\\"architecture\\\":\\\"unknown\\\",\\\"os\\\":\\\"unknown\\\",\\\"config\\\":{},\\\"rootfs\\\":{\\\"type\\\":\\\"layers\\\",\\\"diff_ids\\\":[\\\"sha256:$layer\\\"]}}\"
            keep \"$(jq -cn --arg config sha256:$digest --argjson size $size --arg layer sha256:$layer --argjson layer_size $layer_size '
                {schemaVersion: 2, mediaType: \"application/vnd.oci.image.manifest.v1+json\",
                config: {mediaType: \"application/vnd.oci.image.config.v1+json\", digest: $config, size: $size},
                layers: [{mediaType: \"application/vnd.in-toto+json\", digest: $layer, size: $layer_size}]}')\"
            platform='{platform: {os: \"unknown\", architecture: \"unknown\"}}'; [ $statement = attested ] || platform='{}'
            jq -cn --arg digest sha256:$digest --argjson size $size \
                \"{mediaType: \\\"application/vnd.oci.image.manifest.v1+json\\\", digest: \\$digest, size: \\$size} + $platform\" >> list
        done
        keep \"$(jq -cs '{schemaVersion: 2, mediaType: \"application/vnd.oci.image.index.v1+json\", manifests: .}' list)\"
        jq -c --arg digest sha256:$digest --argjson size $size '.manifests += [{mediaType:
            \"application/vnd.oci.image.index.v1+json\", digest: $digest, size: $size,
            annotations: {\"org.opencontainers.image.ref.name\": \"localhost:5000/multi:1\"}}]' \
            $STAVE_ROOT/images/index.json > changed && cp changed $STAVE_ROOT/images/index.json
        img-push -q localhost:5000/multi:1";
    let pushed = sandbox.sh(index).json();
    let copy = |flags: &str, name: &str| {
        sandbox.sh(&format!(
            "rm -rf copied; img-pull -q --root copied {flags} localhost:5000/multi:1 > copied.json &&
            img-push -q --root copied localhost:5000/multi:1 localhost:5000/{name}"
        ))
    };
    assert_eq!(copy("--all-platforms", "all").json()["digest"], pushed["digest"]);
    let document = sandbox.sh("cat copied.json").json();
    assert_eq!(document["image"]["configuration"]["architecture"], "amd64", "this machine's");
    let said = copy("--platform linux/amd64", "one").exits(1).stderr;
    assert!(said.contains(": the store lacks linux/arm64, unknown/unknown, sha256:"), "{said}");
    sandbox.sh("skopeo copy -q --all --src-tls-verify=false docker://localhost:5000/all dir:by-skopeo").ok();
    // Attestations alone are no image. Beside an image they are pulled.
    let more =
        "img-pull -q --root copied --platform unknown/unknown --platform linux/arm64 localhost:5000/multi:1";
    assert_eq!(sandbox.sh(more).json()["image"]["configuration"]["architecture"], "arm64");
    let said =
        sandbox.sh("img-push -q --root copied localhost:5000/multi:1 localhost:5000/more").exits(1).stderr;
    assert!(said.contains(": the store lacks sha256:") && !said.contains("unknown"), "{said}");
    assert!(
        sandbox.sh("img-pull -q --root empty --platform unknown/unknown localhost:5000/multi:1").status == 1
    );
}

/// An environment in which the configuration of Docker in `home` counts.
const AT_HOME: &str =
    "env -u REGISTRY_AUTH_FILE -u DOCKER_CONFIG -u XDG_CONFIG_HOME -u XDG_RUNTIME_DIR HOME=$PWD/home";

#[test]
fn certificates_and_passwords() {
    let sandbox = with_registries();
    let name = "localhost:5001/lib/a";
    let untrusted = sandbox.sh(&format!("img-pull {name}")).exits(1).stderr;
    assert!(untrusted.contains(": the certificate is not trusted: "), "{untrusted}");
    let denied = sandbox.sh(&format!("img-pull --cacert cert.pem {name}")).exits(1).stderr;
    assert!(
        denied.contains("/manifests/latest: 401 Unauthorized: authentication required\nhint: "),
        "{denied}"
    );
    let flags = "-q --cacert cert.pem --authfile auth.json";
    sandbox.sh(&format!("img-push {flags} localhost:5000/lib/a {name}")).ok();
    sandbox.sh(&format!("img-pull {flags} {name}")).ok();
    // A host's certificates in Docker's directory; the password in ~/.docker/config.json.
    let home = "mkdir -p home/.docker && cp auth.json home/.docker/config.json
        mkdir certs && mount -t tmpfs tmpfs /etc/docker && mkdir -p /etc/docker/certs.d/localhost:5001
        cp cert.pem /etc/docker/certs.d/localhost:5001/ca.crt";
    sandbox.sh(&format!("mkdir -p /etc/docker; {home}")).ok();
    sandbox.sh(&format!("{AT_HOME} img-pull -q --root home-root {name}")).ok();
    sandbox.sh("umount /etc/docker").ok();
}

#[test]
fn helpers_of_credentials() {
    let sandbox = with_registries();
    let name = "localhost:5001/lib/a";
    let flags = "-q --insecure --authfile auth.json";
    sandbox.sh(&format!("mkdir -p home/.docker; img-push {flags} localhost:5000/lib/a {name}")).ok();
    // The helper that the configuration names for this host, and the one for all hosts.
    let helper = "#!/bin/sh\nread -r host || :\necho \"$1 $host\" >> asked\necho '{\"Username\": \"u\", \"Secret\": \"p\"}'\n";
    fs::write(sandbox.directory().join("docker-credential-test"), helper).unwrap();
    for configuration in [json!({"credHelpers": {"localhost:5001": "test"}}), json!({"credsStore": "test"})] {
        fs::write(sandbox.directory().join("home/.docker/config.json"), configuration.to_string()).unwrap();
        sandbox
            .sh(&format!(
                "chmod +x docker-credential-test; rm -f asked
                PATH=$PWD:$PATH {AT_HOME} img-pull -q --insecure {name} && grep -qx 'get localhost:5001' asked"
            ))
            .ok();
    }
    let gone = "mv docker-credential-test elsewhere; ";
    let missing = sandbox.sh(&format!("{gone} {AT_HOME} img-pull -q --insecure {name}")).exits(1).stderr;
    assert_eq!(
        missing,
        "img-pull: read credentials for localhost:5001 from docker-credential-test: there is no such program\n"
    );
    // A helper that fails, or cannot be started, is reported only if the registry wants a password.
    let helper = sandbox.directory().join("docker-credential-test");
    for (content, mode, reason) in [
        ("#!/bin/sh\necho the key is locked\nexit 2\n", "755", "the key is locked"),
        ("#!/bin/sh\nexit 3\n", "755", "exit status: 3"),
        ("no program\n", "755", "Exec format error"),
        ("#!/bin/sh\n", "644", "Permission denied"),
    ] {
        fs::write(&helper, content).unwrap();
        let pull = |name: &str| {
            let set = format!("chmod {mode} docker-credential-test; PATH=$PWD:$PATH; {AT_HOME}");
            sandbox.sh(&format!("{set} img-pull -q --insecure --root home-root-{mode} {name}"))
        };
        fs::write(
            sandbox.directory().join("home/.docker/config.json"),
            json!({"credsStore": "test"}).to_string(),
        )
        .unwrap();
        pull("localhost:5000/lib/a").ok();
        assert_eq!(
            pull(name).exits(1).stderr,
            format!("img-pull: read credentials for localhost:5001 from docker-credential-test: {reason}\n")
        );
        let both = json!({"credsStore": "test", "auths": {"localhost:5001": {"auth": "dTpw"}}});
        fs::write(sandbox.directory().join("home/.docker/config.json"), both.to_string()).unwrap();
        pull(name).ok();
    }
}

#[test]
fn tokens() {
    let sandbox = with_registries();
    // The token server speaks TLS, too: passwords are not sent to a server without TLS.
    sandbox
        .sh("socat OPENSSL-LISTEN:5004,bind=127.0.0.1,fork,reuseaddr,cert=cert.pem,key=key.pem,verify=0 TCP:127.0.0.1:5003 > /dev/null 2>&1 &
            for try in $(seq 100); do grep -q ':138C .* 0A ' /proc/net/tcp && break; sleep 0.05; done")
        .ok();
    let log = || sandbox.sh("cat asked.log; : > asked.log").ok();
    let (known, nobody) =
        ("-q --cacert cert.pem --authfile auth.json", "-q --cacert cert.pem --authfile empty.json");
    for name in ["private/a", "public/a"] {
        sandbox.sh(&format!("img-push {known} localhost:5000/lib/a localhost:5002/{name}")).ok();
    }
    let asked = log();
    assert!(asked.contains("GET known=yes service=registry&scope=repository:private/a:pull,push"), "{asked}");
    // Each push gets one token, not one for each blob. The token also allows mounting the layer from the
    // first repository.
    assert_eq!(asked.lines().count(), 3, "{asked}");
    assert!(asked.ends_with("public/a:pull,push&scope=repository:private/a:pull&\n"), "{asked}");
    sandbox.sh(&format!("img-pull {known} --root fresh localhost:5002/private/a")).ok();
    assert_eq!(log(), "GET known=yes service=registry&scope=repository:private/a:pull&\n");
    // Without a user name, public images can be read.
    sandbox.sh(&format!("img-pull {nobody} --root other localhost:5002/public/a")).ok();
    let denied = sandbox.sh(&format!("img-pull {nobody} localhost:5002/private/a")).exits(1).stderr;
    assert!(
        denied.contains("get https://localhost:5002/v2/private/a/manifests/latest: 401 Unauthorized: ")
            && denied.contains("\nhint: "),
        "{denied}"
    );
    let denied =
        sandbox.sh(&format!("img-push {nobody} localhost:5000/lib/a localhost:5002/public/b")).exits(1);
    assert!(denied.stderr.contains("401 Unauthorized"), "{}", denied.stderr);
    log();
    // `docker login` may have stored a token instead of a password.
    sandbox
        .sh("img-pull -q --cacert cert.pem --authfile identity.json --root third localhost:5002/private/a")
        .ok();
    let asked = log();
    assert!(
        asked.starts_with("POST known=yes ") && asked.contains("scope=repository:private/a:pull"),
        "{asked}"
    );
    // A layer of another repository is mounted from there, with a token for both.
    let mounted = sandbox
        .sh("img-push --cacert cert.pem --authfile auth.json localhost:5000/lib/a localhost:5002/private/b")
        .exits(0);
    assert!(mounted.stderr.contains(": Mounted from public/a\n"), "{}", mounted.stderr);
    assert!(log().contains("scope=repository:public/a:pull"), "the second scope");
}

#[test]
fn a_way_with_tls_does_not_go_on_without() {
    let sandbox = with_registries();
    // A TLS ClientHello is not an HTTP request.
    let elsewhere = r#"#!/bin/bash
        read -r -N 4 method && [ "$method" = "GET " ] && read -r path _ || exit
        while read -r line && [ "${line%$'\r'}" ]; do :; done
        [ "$path" = /v2/ ] && answer='200 OK' || answer='307 Temporary Redirect'
        printf 'HTTP/1.1 %s\r\nLocation: http://localhost:5000%s\r\n' "$answer" "$path"
        printf 'Content-Length: 0\r\nConnection: close\r\n\r\n'"#;
    fs::write(sandbox.directory().join("elsewhere.sh"), elsewhere).unwrap();
    sandbox
        .sh("chmod +x elsewhere.sh; img-push -q localhost:5000/lib/a > /dev/null
            tls=cert=cert.pem,key=key.pem,verify=0
            socat OPENSSL-LISTEN:5006,bind=127.0.0.1,fork,reuseaddr,$tls EXEC:./elsewhere.sh > /dev/null 2>&1 &
            socat TCP-LISTEN:5007,bind=127.0.0.1,fork,reuseaddr EXEC:./elsewhere.sh > /dev/null 2>&1 &
            for port in 138E 138F; do
                for try in $(seq 100); do grep -q \":$port .* 0A \" /proc/net/tcp && break; sleep 0.05; done
            done")
        .ok();
    let refused =
        sandbox.sh("img-pull -q --cacert cert.pem --root fresh localhost:5006/lib/a").exits(1).stderr;
    assert_eq!(
        refused,
        "img-pull: get https://localhost:5006/v2/lib/a/manifests/latest: redirected to an address without TLS: \
         http://localhost:5000/v2/lib/a/manifests/latest\n"
    );
    // A client that began without TLS follows the redirection.
    sandbox.sh("img-pull -q --insecure --root fresh localhost:5007/lib/a > /dev/null").ok();
}

#[test]
fn a_token_server_without_tls_is_told_no_password() {
    let sandbox = with_registries();
    sandbox
        .sh("sed -i 's/https:..localhost:5004/http:\\/\\/localhost:5003/; s/5002/5005/' token.yml
            docker-registry serve token.yml > token2.log 2>&1 &
            for try in $(seq 100); do grep -q ':138D .* 0A ' /proc/net/tcp && break; sleep 0.05; done")
        .ok();
    fs::write(
        sandbox.directory().join("auth.json"),
        json!({"auths": {"localhost:5005": {"auth": "dTpw"}}}).to_string(),
    )
    .unwrap();
    let refused =
        sandbox.sh("img-pull -q --cacert cert.pem --authfile auth.json localhost:5005/lib/a").exits(1).stderr;
    assert!(
        refused.ends_with("token server http://localhost:5003/token would get the password unencrypted\n"),
        "{refused}"
    );
    assert_eq!(sandbox.sh("cat asked.log 2> /dev/null || :").ok(), "");
}

#[test]
fn mirrors() {
    let sandbox = with_registries();
    sandbox.sh("img-push -q localhost:5000/lib/a localhost:5000/library/debian > /dev/null").ok();
    sandbox.sh("img-push -q localhost:5000/lib/a localhost:5000/hub/library/debian:2 > /dev/null").ok();
    let short = layer(&sandbox, "localhost:5000/lib/a:latest");
    // Docker's own registry cannot be reached from the sandbox.
    let pulled = sandbox.sh("img-pull --root one --mirror localhost:5000 debian 2>&1 > one.json").ok();
    let digest = sandbox.sh("jq -r .image.descriptor.digest one.json").ok();
    assert_eq!(
        pulled,
        format!(
            "latest: Pulling from library/debian\n{short}: Pulling fs layer\n{short}: Pull complete\nDigest: {digest}\
             Status: Downloaded newer image for debian:latest\n"
        )
    );
    assert_eq!(sandbox.sh("img-ls --root one | jq -r '.images[0].references[0]'").ok(), "debian:latest\n");
    // A mirror that does not have it, or does not answer, is skipped.
    let second = "img-pull --root two --mirror localhost:9 --mirror localhost:5000/hub --mirror localhost:5000 debian:latest";
    let lines = sandbox.sh(second).exits(0).stderr;
    let passed: Vec<_> = lines.lines().filter(|line| line.starts_with("mirror skipped: ")).collect();
    assert_eq!(passed.len(), 2, "{lines}");
    assert!(passed[0].contains("localhost:9") && passed[0].ends_with("Connection refused"), "{lines}");
    assert!(
        passed[1].ends_with("/v2/hub/library/debian/manifests/latest: 404 Not Found: manifest unknown"),
        "{lines}"
    );
    // The rules of containers-registries.conf(5) work as well.
    let conf = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
                [[registry.mirror]]\nlocation = \"localhost:5000/hub\"\n\
                [[registry]]\nprefix = \"example.org/team\"\nlocation = \"localhost:5001/lib\"\ninsecure = true\n\
                [[registry]]\nprefix = \"blocked.example\"\nblocked = true\n";
    fs::write(sandbox.directory().join("registries.conf"), conf).unwrap();
    let with = "CONTAINERS_REGISTRIES_CONF=$PWD/registries.conf";
    sandbox.sh(&format!("{with} img-pull -q --root three debian:2")).ok();
    sandbox.sh("img-push -q --insecure --authfile auth.json localhost:5000/lib/a localhost:5001/lib/a > /dev/null").ok();
    let moved = format!(
        "{with} img-pull -q --authfile auth.json --root four example.org/team/a | jq -r .image.reference"
    );
    assert_eq!(sandbox.sh(&moved).ok(), "example.org/team/a:latest\n");
    for tool in ["img-pull -q", "img-push -q localhost:5000/lib/a"] {
        let blocked = sandbox.sh(&format!("{with} {tool} blocked.example/x")).exits(1).stderr;
        let file = sandbox.directory().join("registries.conf");
        let name = tool.split(' ').next().unwrap();
        assert_eq!(blocked, format!("{name}: blocked.example/x:latest is blocked by {}\n", file.display()));
    }
}

/// What containers-policy.json(5) lets in, for each tool that brings an image in.
#[test]
fn a_policy_of_the_user() {
    let sandbox = with_registries();
    sandbox.sh("img-push -q localhost:5000/lib/a localhost:5000/hub/library/debian:2 > /dev/null").ok();
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {"localhost:5000/hub": [{"type": "reject"}]}}}"#;
    sandbox.sh("mkdir -p own/.config/containers").ok();
    fs::write(sandbox.directory().join("own/.config/containers/policy.json"), policy).unwrap();
    // Another place of other files does not loosen the policy.
    let with = "HOME=$PWD/own XDG_CONFIG_HOME=$PWD/config";
    for command in [
        "img-pull -q --root five localhost:5000/hub/library/debian:2",
        "img-copy -q localhost:5000/hub/library/debian:2 oci:copied",
        "img-copy -q localhost:5000/hub/library/debian:2 localhost:5000/lib/copied",
    ] {
        let refused = sandbox.sh(&format!("{with} {command}")).exits(1).stderr;
        assert!(refused.contains("localhost:5000/hub/library/debian:2 is rejected by "), "{refused}");
        assert!(refused.ends_with(
            "hint: --insecure-policy of img-pull and img-copy ignores the policy of this machine\n"
        ));
        sandbox.sh(&format!("{with} {command} --insecure-policy > /dev/null")).ok();
    }
}
