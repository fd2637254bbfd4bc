//! What the README tells an admin to do, word by word.

const README: &str = include_str!("../../README.md");

/// The fenced blocks of this language in the section of this heading, in their order.
pub fn blocks(heading: &str, language: &str) -> Vec<String> {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

/// The only block of this language there.
pub fn block(heading: &str, language: &str) -> String {
    let mut blocks = blocks(heading, language);
    assert_eq!(blocks.len(), 1, "{heading}: {blocks:#?}");
    blocks.remove(0)
}
