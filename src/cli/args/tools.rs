//! What can be typed after `stack image` and `stack seccomp`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Bring images of registries into the store, and unpack them.
    Pull {
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// Send an image to a registry.
    Push {
        reference: String,
        /// Under another name [default: its own].
        #[arg(value_name = "AS")]
        to: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// List the images of the store.
    Ls {
        #[arg(long)]
        json: bool,
    },
    /// Show what an image is and how it wants to be run.
    Inspect {
        reference: String,
        #[arg(long)]
        json: bool,
    },
    /// Show the layers of an image.
    Tree {
        reference: String,
        #[arg(long)]
        json: bool,
    },
    /// Take images out of the store; `prune` gives their space back.
    Rm {
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// Show in what the second of two images differs: configuration, layers and files.
    #[command(after_help = "Exit status: 0 the same, 2 different, 1 could not tell.")]
    Diff {
        #[arg(value_name = "BEFORE")]
        before: String,
        #[arg(value_name = "AFTER")]
        after: String,
        #[arg(long)]
        json: bool,
    },
    /// Take an image out of a layout or an archive into the store.
    Import {
        /// `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:TAG]`; archives may be compressed.
        source: String,
        /// What it is called from then on.
        reference: String,
        #[arg(long)]
        json: bool,
    },
    /// Write an image as an archive that docker, podman and skopeo read.
    Export {
        reference: String,
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Delete what no named image and no container holds, and images that no container uses.
    Prune {
        /// Images that no container uses, too.
        #[arg(long)]
        all: bool,
        /// Such images, pulled or imported longer ago than this, as "30d" or "12h".
        #[arg(long, value_name = "AGE")]
        older_than: Option<String>,
        /// Such images, but not the newest so many of each repository.
        #[arg(long, value_name = "COUNT")]
        keep: Option<usize>,
        /// Such images, oldest first, until so much is free, as "10GiB".
        #[arg(long, value_name = "SIZE")]
        free: Option<String>,
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
        #[arg(long)]
        json: bool,
    },
    /// Hold blobs against their digests and unpacked layers against their archives, and repair them.
    Fsck {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct SeccompArgs {
    #[command(subcommand)]
    pub command: SeccompCommand,
}

#[derive(Debug, Subcommand)]
pub enum SeccompCommand {
    /// Compile profiles and say what is wrong with them; with `--syscall`, what they answer.
    Check {
        /// Profile files in JSON or TOML, or `default`.
        #[arg(required = true, value_name = "PROFILE")]
        profiles: Vec<String>,
        /// A call such as `mount`, `socket(38)`, `clone(0x10000000)` or a number; may be given several times.
        #[arg(short = 's', long = "syscall", value_name = "CALL")]
        calls: Vec<String>,
        #[command(flatten)]
        given: SeccompGiven,
        #[arg(long)]
        json: bool,
    },
    /// Say which rule and line of a profile decides about a call.
    Explain {
        /// A profile file in JSON or TOML, or `default`.
        profile: String,
        /// Calls such as `mount`, `socket(38)`, `clone(0x10000000)` or a number.
        #[arg(required = true, value_name = "CALL")]
        calls: Vec<String>,
        #[command(flatten)]
        given: SeccompGiven,
        #[arg(long)]
        json: bool,
    },
    /// Show the program that a profile becomes.
    Disasm {
        /// A profile file in JSON or TOML, or `default`.
        profile: String,
        #[command(flatten)]
        given: SeccompGiven,
    },
}

/// For whom a profile's conditions are decided.
#[derive(Debug, Args)]
pub struct SeccompGiven {
    /// A capability that the container has, with or without `CAP_` [default: the usual set].
    #[arg(long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// The kernel's version [default: this machine's].
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<String>,
    /// The calls' architecture: x86_64, x86, x32 or aarch64 [default: this machine's].
    #[arg(long)]
    pub arch: Option<String>,
}
