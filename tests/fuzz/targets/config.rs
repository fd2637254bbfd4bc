//! A configuration file: a valid `Config`, or problems that can be printed.

/// The text of the file.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match linkspan::config::parse(&text, "ls0.toml", "ls0") {
        Ok(config) => assert!(!config.connections.is_empty()),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}
