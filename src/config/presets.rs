//! The configurations that are part of the binary.

/// `configs/default.toml`: every key, its documentation and its default.
pub const DEFAULT_TOML: &str = include_str!("../../configs/default.toml");

/// A named configuration: differences from the default, chosen for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name that `--config` takes.
    pub name: &'static str,
    /// The TOML text.
    pub text: &'static str,
}

impl Preset {
    /// The preset of that name.
    pub fn find(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// All names, for help texts and messages.
    pub fn names() -> String {
        PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
    }
}

/// Every preset, by name.
pub const PRESETS: &[Preset] = &[
    Preset { name: "demo", text: include_str!("../../configs/demo.toml") },
    Preset { name: "games", text: include_str!("../../configs/games.toml") },
    Preset { name: "ml-100k", text: include_str!("../../configs/ml-100k.toml") },
    Preset { name: "ml-1m", text: include_str!("../../configs/ml-1m.toml") },
    Preset { name: "odd-client", text: include_str!("../../configs/odd-client.toml") },
];
