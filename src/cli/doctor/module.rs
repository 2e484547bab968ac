//! The file of the module.

use std::fs;
use std::path::Path;

use pam_prefixquota::VERSION;

use super::{Finding, unsafe_rights};
use crate::cli::stacks::stack::{MODULE, module_directories};

const ABOUT: &str = "module";

pub fn examine() -> Vec<Finding> {
    let directories = module_directories();
    let files: Vec<_> =
        directories.iter().map(|dir| dir.join(MODULE)).filter(|file| file.exists()).collect();
    if files.is_empty() {
        let places: Vec<_> = directories.iter().map(|dir| dir.display().to_string()).collect();
        let found = match places.is_empty() {
            true => "PAM's module directory was not found".to_owned(),
            false => format!("{MODULE} is not in {}", places.join(" or ")),
        };
        return vec![Finding::wrong(ABOUT, found, "Run: make install")];
    }
    files.iter().map(|file| examine_file(file)).collect()
}

fn examine_file(file: &Path) -> Finding {
    let shown = file.display();
    let found = match fs::symlink_metadata(file) {
        Ok(found) => found,
        Err(error) => {
            return Finding::wrong(ABOUT, format!("{shown}: {error}"), "Run: make install");
        }
    };
    if !found.is_file() {
        return Finding::wrong(
            ABOUT,
            format!("{shown} is not a regular file"),
            "Run: make install",
        );
    }
    if let Some(what) = unsafe_rights(&found) {
        let mend = format!("Run: chown root:root {shown}; chmod 0644 {shown}");
        return Finding::wrong(ABOUT, format!("{shown} {what}"), mend);
    }
    match fs::read(file).ok().and_then(|bytes| version(&bytes)) {
        Some(version) if version == VERSION => Finding::ok(ABOUT, format!("{shown}, {version}")),
        Some(version) => Finding::wrong(
            ABOUT,
            format!("{shown} is {version}, and this command {VERSION}"),
            "Install both from the same build, then restart services that live long.",
        ),
        None => Finding::note(
            ABOUT,
            format!("{shown}: its version cannot be told"),
            format!("If it is not {VERSION}: make install"),
        ),
    }
}

/// The name and version that the messages of the store have in them.
fn version(bytes: &[u8]) -> Option<String> {
    if bytes.windows(VERSION.len()).any(|window| window == VERSION.as_bytes()) {
        return Some(VERSION.to_owned());
    }
    let name = VERSION.split_inclusive(' ').next()?.as_bytes();
    let starts = bytes.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
    let numbers = starts.filter_map(|(at, _)| {
        let rest = bytes.get(at + name.len()..)?;
        let length = rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        let number = std::str::from_utf8(rest.get(..length)?).ok()?;
        (number.split('.').filter(|part| !part.is_empty()).count() == 3).then(|| number.to_owned())
    });
    let number = numbers.map(|number| number.trim_end_matches('.').to_owned()).next()?;
    Some(format!("{}{number}", String::from_utf8_lossy(name)))
}
