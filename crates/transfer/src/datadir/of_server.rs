//! The paths of a running server's files, from its own variables. They count, whatever its option files
//! contain by now.
use std::collections::BTreeMap;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;

use super::layout::Layout;
use crate::flavor;
use crate::server::options::ServerOptions;

/// Variables that determine where files are and how to read them.
const PLACES: [&str; 7] = [
    "datadir",
    "innodb_data_home_dir",
    "innodb_data_file_path",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
    "innodb_page_size",
    "lower_case_table_names",
];

/// Returns the layout of a server with these global variables, and its options as far as they are known from
/// them.
///
/// # Errors
/// A configuration failure naming the variable that is invalid.
pub fn layout_of(variables: &BTreeMap<String, String>) -> Result<(Layout, ServerOptions)> {
    let of_engines = flavor::ALL.iter().filter_map(|flavor| Some(flavor.second_engine()?.directory));
    let words = PLACES.into_iter().chain(of_engines).filter_map(|name| {
        let value = variables.get(name).filter(|value| !value.is_empty())?;
        Some(format!("--{}={value}", name.replace('_', "-")))
    });
    let mysqld_args = ["--no-defaults".to_owned()].into_iter().chain(words).collect();
    let args = SstArgs { mysqld_args, ..SstArgs::default() };
    let options = ServerOptions::load(&args)?;
    Ok((Layout::resolve(&args, &options)?, options))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn variables_say_where_files_are() {
        let set = [
            ("datadir", "/x/data/"),
            ("innodb_data_home_dir", ""),
            ("innodb_data_file_path", "ibdata1:12M;ibdata2:12M:autoextend"),
            ("innodb_log_group_home_dir", "/x/logs"),
            ("innodb_undo_directory", "./"),
            ("aria_log_dir_path", "/x/data/"),
            ("innodb_page_size", "4096"),
            ("lower_case_table_names", "1"),
            ("port", "3306"),
        ];
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (layout, _) = layout_of(&variables).unwrap();
        assert_eq!(layout.datadir, Path::new("/x/data/"));
        assert_eq!((layout.system_files.len(), layout.page_size), (2, 4096));
        assert_eq!(
            (layout.log_home.as_path(), layout.undo_dir.as_path()),
            (Path::new("/x/logs"), Path::new("/x/data/"))
        );
        assert!(layout_of(&BTreeMap::from([("innodb_page_size".to_owned(), "5".to_owned())])).is_err());
    }
}
