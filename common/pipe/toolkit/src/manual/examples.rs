//! Examples for the manual pages. A test in `tests/manual.rs` gives the arguments of each to its tool.

/// What an example does, and its command.
pub(super) type Example = (&'static str, &'static str);

/// The examples of a tool. Empty for a tool that is not one of ours.
pub(super) fn of(tool: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == tool).map_or(&[], |(_, examples)| examples)
}

/// Those of step-begin and of step-done.
const STEP: &[Example] = &[(
    "A stage of one's own, in the shell:",
    "step-begin note --operations '[\"/run/note\"]' | sh -c 'cp /dev/stdin d.json; touch /run/note; step-done note < d.json'",
)];

/// The examples of each tool.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "bridge-attach",
        &[
            (
                "Attach a container to the network front, with a fixed address:",
                "bridge-attach front --ip 10.88.1.5 < web.json > attached.json",
            ),
            ("Take the container off that network:", "bridge-attach --undo front < attached.json > web.json"),
        ],
    ),
    (
        "macvlan-attach",
        &[
            (
                "Attach a container to the wire of eth0, with addresses that nothing else there gives out:",
                "macvlan-attach --parent eth0 --ip-range 192.168.1.192/26 < web.json > attached.json",
            ),
            (
                "The same on VLAN 100:",
                "macvlan-attach --parent eth0.100 --subnet 10.1.0.0/24 < web.json > attached.json",
            ),
        ],
    ),
    (
        "ipvlan-attach",
        &[(
            "Attach a container to the wire of eth0 without a hardware address of its own:",
            "ipvlan-attach --parent eth0 --ip 192.168.1.200 < web.json > attached.json",
        )],
    ),
    (
        "cgroup-limit",
        &[(
            "Half a gibibyte of memory, one and a half processors, 100 processes:",
            "layer-apply < image.json | union-mount | cgroup-limit --memory 512M --cpus 1.5 --pids-limit 100 | ns-exec -d",
        )],
    ),
    (
        "container-attach",
        &[("See what the container web prints, and type input for it:", "container-attach web")],
    ),
    (
        "container-cp",
        &[
            ("Copy a file into the container web:", "container-cp site.conf web:/etc/nginx/"),
            ("Copy a directory out of it, as a tar:", "container-cp web:/var/log - > log.tar"),
        ],
    ),
    (
        "container-events",
        &[("Print each change of a container, one JSON object a line:", "container-events --json")],
    ),
    (
        "container-exec",
        &[
            ("Open a shell in the container web:", "container-exec -t web -- sh"),
            ("Run a command as another user:", "container-exec -u 1000:1000 web -- id"),
        ],
    ),
    ("container-kill", &[("Send the signal HUP to the first process:", "container-kill -s HUP web")]),
    ("container-logs", &[("Follow the last ten lines, with times:", "container-logs -f -t --tail 10 web")]),
    (
        "container-ls",
        &[
            ("List the containers whose process is running:", "container-ls --running"),
            ("Names and states of all containers:", "container-ls --format '{id} {state}'"),
            ("The same, with a template of Docker:", "container-ls --format '{{.Names}} {{.State}}'"),
            (
                "The address of a container:",
                "container-ls --records --format '{{.NetworkSettings.IPAddress}}' web",
            ),
            ("The names of containers that failed with status 1:", "container-ls --filter exited=1 --ids"),
        ],
    ),
    (
        "container-pause",
        &[
            ("Stop all processes of a container where they are:", "container-pause web"),
            ("Let them go on:", "container-pause --resume web"),
        ],
    ),
    (
        "container-rename",
        &[(
            "Call the container web shop. Other containers find it by that name at once:",
            "container-rename web shop",
        )],
    ),
    (
        "container-start",
        &[
            ("Start a container that has ended:", "container-start web"),
            ("After a restart of the machine, start all that should run:", "container-start --all"),
        ],
    ),
    (
        "container-update",
        &[
            ("Give a running container more memory:", "container-update --memory 1G web"),
            ("Start it again whenever it ends:", "container-update --restart always web"),
        ],
    ),
    (
        "container-stats",
        &[("Print the use of memory and processors until interrupted:", "container-stats --stream web")],
    ),
    (
        "container-stop",
        &[("Ask the container to end, and end it after three seconds:", "container-stop -t 3 web")],
    ),
    ("container-top", &[("List the processes of the container web:", "container-top web")]),
    (
        "container-wait",
        &[("Wait for the end of a container, and print its exit status:", "container-wait web")],
    ),
    (
        "egress-allow",
        &[
            (
                "Let a container reach two names and one network, and nothing else:",
                "egress-allow github.com '*.debian.org:443' 10.0.0.0/8 < attached.json | ns-exec -d",
            ),
            (
                "Let it reach TLS servers of that name only, also where other names have the same address:",
                "egress-allow --sni github.com < attached.json | ns-exec -d",
            ),
        ],
    ),
    (
        "egress-log",
        &[("Print what was rejected, as arguments of egress-allow:", "egress-log --arguments web")],
    ),
    (
        "img-attach",
        &[(
            "Attach an SBOM to an image:",
            "img-attach --artifact-type application/spdx+json registry.example/web:1 web.spdx.json:application/spdx+json",
        )],
    ),
    (
        "img-build",
        &[
            ("Build the directory as web:", "img-build -t web ."),
            ("Build one stage, and write its files into a directory:", "img-build --target static -o site ."),
            ("Explain why steps are not in the cache:", "img-build --explain-cache -t web ."),
        ],
    ),
    ("img-commit", &[("Make an image of a container's changes:", "img-commit -t web:changed < web.json")]),
    ("img-convert", &[("Compress all layers with zstd:", "img-convert --compression zstd -t web:zstd web")]),
    (
        "img-copy",
        &[(
            "Copy an image from one registry to another:",
            "img-copy docker://registry.example/web:1 docker://mirror.example/web:1",
        )],
    ),
    ("img-diff", &[("List what two images differ in:", "img-diff web:1 web:2")]),
    ("img-digest", &[("Print the digest of an image in a registry:", "img-digest registry.example/web:1")]),
    ("img-edit", &[("Add a label to an image:", "img-edit web --label version=2 -t web:2")]),
    ("img-export", &[("Unpack the files of an image:", "img-export web | tar -x -C rootfs")]),
    (
        "img-gc",
        &[
            ("Remove blobs and layers that nothing uses:", "img-gc"),
            ("Shrink the build cache to ten gigabytes:", "img-gc --keep-size 10G"),
        ],
    ),
    ("img-history", &[("List the steps that made an image:", "img-history web")]),
    ("img-index", &[("Combine images for two platforms into one:", "img-index web web:amd64 web:arm64")]),
    (
        "img-inspect",
        &[(
            "Start a pipe with an image of the store:",
            "img-inspect web | layer-apply | union-mount | ns-exec",
        )],
    ),
    ("img-load", &[("Load an archive of docker save:", "img-load web.tar")]),
    (
        "img-login",
        &[(
            "Log in to a registry, with the password from a file:",
            "img-login -u me --password-stdin registry.example < password",
        )],
    ),
    ("img-logout", &[("Forget the password of a registry:", "img-logout registry.example")]),
    (
        "img-ls",
        &[
            ("List the images of the store:", "img-ls"),
            (
                "Names and sizes, with a template of Docker:",
                "img-ls --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
            ),
            ("List the steps of the build cache:", "img-ls --cache"),
        ],
    ),
    (
        "img-mount",
        &[
            ("Look at the files of an image:", "img-mount web /mnt"),
            ("Unmount them:", "img-mount --undo /mnt"),
        ],
    ),
    (
        "img-pull",
        &[
            ("Pull an image, and run it:", "img-pull busybox | layer-apply | union-mount | ns-exec -t -- sh"),
            (
                "Pull an image only if it is signed with a key:",
                "img-pull --verify cosign.pub registry.example/web:1",
            ),
            ("Pull an image for all its platforms:", "img-pull --all-platforms registry.example/web"),
        ],
    ),
    ("img-push", &[("Push an image of the store:", "img-push registry.example/web:1")]),
    (
        "img-referrers",
        &[("List what refers to an image, such as signatures:", "img-referrers registry.example/web:1")],
    ),
    ("img-rm", &[("Remove a name from the store:", "img-rm web:old")]),
    ("img-save", &[("Write an archive that docker load takes:", "img-save web -o web.tar")]),
    ("img-sign", &[("Sign an image in a registry:", "img-sign --key cosign.key registry.example/web:1")]),
    ("img-tag", &[("Give an image another name:", "img-tag web registry.example/web:1")]),
    ("img-tags", &[("List the tags of a repository:", "img-tags registry.example/web")]),
    (
        "img-verify",
        &[
            ("Read every blob of the store:", "img-verify"),
            ("Remove damaged blobs, so that the next pull replaces them:", "img-verify --remove"),
        ],
    ),
    (
        "layer-apply",
        &[(
            "Unpack the layers of an image, and mount them:",
            "img-inspect web | layer-apply | union-mount > mounted.json",
        )],
    ),
    (
        "layer-diff",
        &[
            ("Write what a container has changed as a layer:", "layer-diff -o changes.tar.gz < web.json"),
            ("List it:", "layer-diff --list < web.json"),
        ],
    ),
    (
        "link-hosts",
        &[(
            "Let a container call the container db by the name database:",
            "link-hosts --link db:database < attached.json | ns-exec -d",
        )],
    ),
    (
        "name-serve",
        &[(
            "Let other containers of its networks find a container as www:",
            "name-serve --network-alias www < attached.json | ns-exec -d",
        )],
    ),
    (
        "net-guard",
        &[("Restore what other programs remove from containers' networks, until it is ended:", "net-guard")],
    ),
    (
        "net-peers",
        &[(
            "Share the network front with other hosts:",
            "net-peers front --etcd http://10.0.0.1:2379 --subnet 10.88.0.0/16",
        )],
    ),
    ("net-repair", &[("Restore it once, for all containers:", "net-repair --all")]),
    (
        "netns-add",
        &[(
            "Make a network namespace, and attach it to two networks:",
            "netns-add < mounted.json | bridge-attach front | bridge-attach back | ns-exec -d",
        )],
    ),
    (
        "netns-bridge",
        &[(
            "A network as Docker makes it, with one published port:",
            "netns-bridge < mounted.json | veth-pair | portmap -p 8080:80 | ns-exec -d",
        )],
    ),
    (
        "volume-create",
        &[(
            "Make a volume, and mount it in a container:",
            "volume-create db; union-mount -v db:/var/lib/db < layers.json",
        )],
    ),
    ("volume-ls", &[("List the volumes that no container uses:", "volume-ls --filter dangling=true")]),
    ("volume-rm", &[("Remove a volume with its files:", "volume-rm db")]),
    ("network-create", &[("Make a named network:", "network-create front --subnet 10.88.1.0/24")]),
    ("network-ls", &[("List the named networks:", "network-ls")]),
    ("network-rm", &[("Remove a named network:", "network-rm front")]),
    (
        "ns-exec",
        &[
            ("Run the command of an image in the background:", "ns-exec -d < mounted.json > web.json"),
            (
                "Open a shell without capabilities, network or a writable root:",
                "ns-exec --sandbox -t --from mounted.json -- sh",
            ),
            ("Run a command in a running container:", "ns-exec --join web -- ps"),
        ],
    ),
    (
        "portmap",
        &[
            (
                "Publish port 80 of the container as 8080 of the host:",
                "portmap -p 8080:80 < attached.json | ns-exec -d",
            ),
            (
                "Publish a port of a container that runs:",
                "portmap -p 127.0.0.1:8443:443 < web.json > more.json",
            ),
        ],
    ),
    (
        "space-ls",
        &[
            ("List what takes space on the disk:", "space-ls --table"),
            ("How many bytes img-gc would free, in scripts:", "space-ls --format '{type} {reclaimable}'"),
        ],
    ),
    ("step-begin", STEP),
    ("step-done", STEP),
    (
        "union-diff",
        &[
            ("List what a container has changed since its first snapshot:", "union-diff web@1 web"),
            ("The same as a patch:", "union-diff --patch web@1 web"),
        ],
    ),
    (
        "union-fork",
        &[(
            "Make a container of the newest snapshot of another one:",
            "union-fork --id try web | ns-exec -d",
        )],
    ),
    ("union-merge", &[("Give the container web what its fork has written:", "union-merge try")]),
    (
        "union-mount",
        &[
            (
                "Mount unpacked layers with a writable top:",
                "layer-apply < image.json | union-mount > mounted.json",
            ),
            (
                "Keep what the container writes after a restart of the machine, at most two gibibytes of it:",
                "union-mount --durable --size 2G < unpacked.json",
            ),
        ],
    ),
    (
        "union-snapshot",
        &[
            ("Freeze what the container web has written:", "union-snapshot web"),
            ("Discard what was written since:", "union-snapshot --undo --id web"),
        ],
    ),
    (
        "unwind",
        &[
            ("Undo all steps of a document, the newest first:", "unwind < web.json"),
            ("The same by the container's name:", "unwind web"),
        ],
    ),
    (
        "veth-pair",
        &[(
            "Connect a namespace with its bridge:",
            "netns-bridge < mounted.json | veth-pair > attached.json",
        )],
    ),
];
