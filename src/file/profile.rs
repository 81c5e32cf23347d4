//! Profiles: the overrides of those that were chosen, and the names that nobody knows.

use toml::de::DeTable;

use super::code;
use super::diagnostic::{Diagnostics, Draft};
use super::include::Override;
use super::tree;
use super::walk::Reader;
use super::words::{nearest, quoted_list};

/// Lays the overrides of the chosen profiles over the tables of all files. Answers with every profile that has one.
pub(super) fn lay<'t>(reader: &mut Reader, root: &mut DeTable<'t>, mut overrides: Vec<Override<'t>>) -> Vec<String> {
    for over in &mut overrides {
        reader.name(&over.profile, &over.span, "the profile's name");
        for key in ["include", "override"] {
            if let Some((key, _)) = over.table.remove_entry(key) {
                let message = format!("`{}` cannot stand in [override.{}]", key.get_ref(), over.profile);
                reader.push(
                    Draft::error(code::UNKNOWN_KEY, &key.span(), message).help("write it at the top of the file"),
                );
            }
        }
    }
    let known = overrides.iter().map(|over| over.profile.clone()).collect();
    for chosen in reader.surroundings.profiles {
        for over in overrides.iter_mut().filter(|over| over.profile == *chosen) {
            tree::lay(root, std::mem::take(&mut over.table), "", &mut reader.drafts);
        }
    }
    known
}

/// Tells the chosen profiles that are none of `known`: most likely a slip, that would leave out what was wished for.
pub(super) fn tell_unknown(reader: &mut Reader, known: &[String]) {
    for chosen in reader.surroundings.profiles.iter().filter(|chosen| !known.contains(chosen)) {
        let message = format!("there is no profile `{chosen}`");
        let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let mut help: Vec<String> =
            nearest(chosen, names.iter().copied()).map(|near| format!("did you mean `{near}`?")).into_iter().collect();
        help.push(match names.is_empty() {
            true => "no container has a `profile`, and there is no [override.…]".into(),
            false => format!("the profiles are {}", quoted_list(&names)),
        });
        let name = &reader.written.part(0).name;
        reader.foreign.push(Diagnostics::without_place(name, code::UNKNOWN_PROFILE, message, help));
    }
}
