//! The methods of a study: `configs/methods.toml`, a file of one's own, and variants of either.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml_edit::{DocumentMut, TableLike};

use crate::config::MethodLayer;

const METHODS_TOML: &str = include_str!("../../configs/methods.toml");

/// Below this likeness a known name is no suggestion for an unknown one.
const LEAST_LIKENESS: f64 = 0.5;

/// One method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Name, as `--methods` takes it and tables show it.
    pub name: String,
    /// In words.
    pub title: String,
    /// What it is and where it comes from.
    pub about: String,
    /// What it sets.
    pub layer: MethodLayer,
}

/// Why methods were refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum MethodError {
    /// Neither a known name nor a file.
    #[error("unknown method `{name}`{}, methods are {known}", did_you_mean(suggestion.as_deref()))]
    Unknown {
        /// What was given.
        name: String,
        /// The nearest name that exists.
        suggestion: Option<String>,
        /// All names.
        known: String,
    },
    /// A file that is not there, or has no name to call the method by.
    #[error("no method file at {path}")]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A variant without `key=value`.
    #[error("method `{method}`: got {got:?} after a colon, expected section.key=value")]
    Variant {
        /// The method as given.
        method: String,
        /// What follows the colon.
        got: String,
    },
    /// Two methods that go by one name, or whose runs would lie in one folder.
    #[error("method `{name}` is given twice, expected different methods")]
    Twice {
        /// The second one.
        name: String,
    },
}

impl Method {
    /// Name of its folder within a study: the method's, with anything unusual in a file name replaced.
    pub fn folder(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-_.=".contains(c);
        self.name.chars().map(|c| if plain(c) { c } else { '_' }).collect()
    }

    /// What `text` stands for: a known name or a file of differences, then `:section.key=value` as often
    /// as wanted.
    ///
    /// # Errors
    /// A name that nobody knows, a file that is not there, or a variant that sets no key.
    pub fn parse(text: &str) -> Result<Self, MethodError> {
        let (base, variants) = text.split_once(':').map_or((text, None), |(b, v)| (b, Some(v)));
        let mut method = Self::base(base)?;
        for set in variants.into_iter().flat_map(|variants| variants.split(':')) {
            let refused = || MethodError::Variant { method: text.to_owned(), got: set.to_owned() };
            let (key, value) = set.split_once('=').ok_or_else(refused)?;
            if key.trim().is_empty() || value.trim().is_empty() {
                return Err(refused());
            }
            method.name += &format!(":{set}");
            method.title += &format!(", {set}");
            method.layer.sets.push(set.to_owned());
        }
        method.layer.name.clone_from(&method.name);
        Ok(method)
    }

    fn base(name: &str) -> Result<Self, MethodError> {
        let mut known = methods();
        if let Some(place) = known.iter().position(|method| method.name == name) {
            return Ok(known.swap_remove(place));
        }
        if name.ends_with(".toml") || name.contains('/') {
            return Self::of_file(Path::new(name));
        }
        let likeness = |method: &Method| strsim::normalized_damerau_levenshtein(name, &method.name);
        let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        Err(MethodError::Unknown {
            name: name.to_owned(),
            suggestion: nearest
                .filter(|method| likeness(method) >= LEAST_LIKENESS)
                .map(|method| method.name.clone()),
            known: known.into_iter().map(|method| method.name).collect::<Vec<_>>().join(", "),
        })
    }

    fn of_file(path: &Path) -> Result<Self, MethodError> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| path.is_file());
        let name = stem.ok_or_else(|| MethodError::NoFile { path: path.to_owned() })?.to_owned();
        Ok(Self {
            title: name.clone(),
            about: format!("The differences in {}.", path.display()),
            layer: MethodLayer { file: Some(path.to_owned()), ..MethodLayer::default() },
            name,
        })
    }
}

/// The embedded methods, in the order of `configs/methods.toml`.
pub fn methods() -> Vec<Method> {
    let document: DocumentMut =
        METHODS_TOML.parse().expect("the embedded methods.toml is TOML: tested");
    let tables = document.iter().filter_map(|(name, item)| Some((name, item.as_table_like()?)));
    tables.map(|(name, table)| embedded(name, table)).collect()
}

fn embedded(name: &str, table: &dyn TableLike) -> Method {
    let text = |key| table.get(key).and_then(|item| item.as_str()).unwrap_or_default().to_owned();
    let sets = table.get("set").and_then(|item| item.as_table_like());
    let sets = sets.into_iter().flat_map(|sets| sets.iter());
    let sets = sets.map(|(key, value)| format!("{key}={}", value.to_string().trim())).collect();
    Method {
        name: name.to_owned(),
        title: text("title"),
        about: text("about"),
        layer: MethodLayer { name: name.to_owned(), file: None, sets },
    }
}

/// The methods that `texts` name, in their order.
///
/// # Errors
/// A name that nobody knows, a file that is not there, or two methods of one name.
pub fn select(texts: &[String]) -> Result<Vec<Method>, MethodError> {
    let mut folders = BTreeSet::new();
    let mut selected = Vec::new();
    for text in texts {
        let method = Method::parse(text.trim())?;
        if !folders.insert(method.folder()) {
            return Err(MethodError::Twice { name: method.name });
        }
        selected.push(method);
    }
    Ok(selected)
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Loaded, MixingRuleKind};

    fn load(method: &Method) -> Loaded {
        // A base that differs, so that a method that forgets a key shows it.
        let sets = ["mixing.rule=fedavg", "mixing.sharpness=7", "heating.form=off"];
        let sets = sets.map(str::to_owned).to_vec();
        let layers = Layers { sets, method: Some(method.layer.clone()), ..Layers::default() };
        Loaded::load(&layers).unwrap_or_else(|error| panic!("{}: {error}", method.name))
    }

    #[test]
    fn every_method_is_described_and_sets_legal_keys() {
        for method in methods() {
            assert!(!method.title.is_empty() && method.about.ends_with('.'), "{method:?}");
            assert!(!method.layer.sets.is_empty(), "{method:?}");
            load(&method);
            assert_eq!(method.folder(), method.name);
        }
    }

    /// method.md 3: similarity of parameters, gamma 1, sum.
    #[test]
    fn the_published_form_does_not_depend_on_the_base() {
        let [method] = &select(&["fellrec".to_owned()]).expect("a known name")[..] else {
            panic!("one method")
        };
        let mixing = load(method).config.mixing;
        assert_eq!((mixing.rule, mixing.sharpness), (MixingRuleKind::Fellrec, 1.0));
    }

    #[test]
    fn variants_set_more_keys_and_have_names_and_folders_of_their_own() {
        let texts = ["fedavg", "fedavg:optimizer.learning_rate=3e-3:model.tokenizer=a/b"];
        let selected = select(&texts.map(str::to_owned)).expect("legal");
        assert_eq!(selected[1].name, texts[1]);
        assert_eq!(selected[1].folder(), "fedavg_optimizer.learning_rate=3e-3_model.tokenizer=a_b");
        assert_eq!(load(&selected[1]).config.optimizer.learning_rate, 3e-3);
    }

    #[test]
    fn a_file_is_a_method_named_by_its_stem_and_above_all_layers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "[mixing]\nrule = \"local\"\n").expect("written");
        let text = path.display().to_string();
        let selected = select(std::slice::from_ref(&text)).expect("a file");
        assert_eq!(selected[0].name, "mine");
        assert_eq!(load(&selected[0]).config.mixing.rule, MixingRuleKind::Local);
        let twice = select(&[text.clone(), text]).expect_err("twice");
        assert_eq!(twice, MethodError::Twice { name: "mine".to_owned() });
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |text: &str| select(&[text.to_owned()]).expect_err("refused").to_string();
        assert!(refused("fedvag").contains("did you mean `fedavg`?"));
        assert!(!refused("xyzzy").contains("did you mean"));
        assert!(refused("xyzzy").contains("methods are local, central, fedavg, "));
        assert_eq!(refused("no/such.toml"), "no method file at no/such.toml");
        for text in ["fedavg:", "fedavg:a.b", "fedavg:a.b=", "fedavg:=1"] {
            assert!(refused(text).contains("expected section.key=value"), "{text}");
        }
    }
}
