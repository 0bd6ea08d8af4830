//! Which file of the crate imports which other one, as the compiler would see it: tests left out, uses
//! within functions and macros included, names followed to the file that defines them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Attribute, Item, UseTree};

/// A path from the root of the crate, such as `["policy", "breaker"]`.
pub type Name = Vec<String>;

type Aliases = BTreeMap<String, Name>;

/// One file.
pub struct Source {
    pub path: PathBuf,
    pub text: String,
    /// The numbers of the lines that are tests.
    cut: BTreeSet<usize>,
    /// Whole paths of everything it names, as written.
    named: BTreeSet<Name>,
    /// What it gives another name to, or passes on: the name, and what it stands for.
    aliases: Aliases,
}

/// All files of a crate, by the module that each of them is.
pub struct Sources(BTreeMap<Name, Source>);

impl Sources {
    /// The files below `folder`.
    pub fn read(folder: &Path) -> Self {
        let mut folders = vec![folder.to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder of sources") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.push(path);
                }
            }
        }
        Self::of(found.into_iter().map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let name = path.strip_prefix(folder).expect("a file below it").to_owned();
            (name, text)
        }))
    }

    /// Files as they would be named below the folder of sources.
    pub fn of(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let files: Vec<_> = files.into_iter().filter(|(path, _)| !is_test(path)).collect();
        let modules: BTreeSet<Name> = files.iter().map(|(path, _)| module_of(path)).collect();
        let sources = files.into_iter().map(|(path, text)| {
            let module = module_of(&path);
            (module.clone(), Source::parse(path, text, &module, &modules))
        });
        Sources(sources.collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Source)> {
        self.0.iter()
    }

    /// The files that `module` imports, and what of each.
    pub fn imports(&self, module: &Name) -> BTreeMap<&Name, BTreeSet<String>> {
        let mut imports = BTreeMap::<_, BTreeSet<_>>::new();
        for name in &self.0[module].named {
            if let Some(found) = self.find(name, 8)
                && found != module
            {
                imports.entry(found).or_default().insert(name.join("::"));
            }
        }
        imports
    }

    /// The file that defines `name`. The root of the crate, which everything lies in, is no answer.
    fn find(&self, name: &[String], hops: u8) -> Option<&Name> {
        let known = (1..=name.len()).rev().find(|end| self.0.contains_key(&name[..*end]))?;
        let (module, source) = self.0.get_key_value(&name[..known])?;
        let passed_on = name.get(known).and_then(|next| source.aliases.get(next));
        match passed_on {
            Some(target) if hops > 0 && !target.starts_with(name) => {
                let rest = name[known + 1..].iter().cloned();
                let target: Name = target.iter().cloned().chain(rest).collect();
                self.find(&target, hops - 1).or(Some(module))
            }
            Some(_) | None => Some(module),
        }
    }

    /// Files that import each other, over others perhaps. A module and the files that lie in it may.
    pub fn circles(&self) -> Vec<String> {
        let lies_in = |a: &Name, b: &Name| a.starts_with(b) || b.starts_with(a);
        let mut edges: BTreeMap<&Name, BTreeSet<&Name>> = self
            .0
            .keys()
            .map(|from| {
                let to = self.imports(from).into_keys().filter(|to| !lies_in(from, to));
                (from, to.collect())
            })
            .collect();
        // What imports nothing that is left is in no circle, and neither is what nothing imports.
        loop {
            let imported: BTreeSet<&Name> = edges.values().flatten().copied().collect();
            let before = edges.len();
            edges.retain(|from, to| !to.is_empty() && imported.contains(from));
            let left: BTreeSet<&Name> = edges.keys().copied().collect();
            edges.values_mut().for_each(|to| to.retain(|to| left.contains(to)));
            if edges.len() == before {
                break;
            }
        }
        let line = |(from, to): (&&Name, &BTreeSet<&Name>)| {
            let to: Vec<_> = to.iter().map(|to| to.join("::")).collect();
            format!("{} imports {}", from.join("::"), to.join(", "))
        };
        edges.iter().map(line).collect()
    }
}

impl Source {
    fn parse(path: PathBuf, text: String, module: &Name, modules: &BTreeSet<Name>) -> Self {
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (cut, named) = (BTreeSet::new(), BTreeSet::new());
        let mut source = Source { path, text, cut, named, aliases: Aliases::new() };
        let scope = Scope { module: module.clone(), modules };
        // First what names stand for: a use may come after its name.
        let items: Vec<_> = file.items.iter().filter(|item| source.keeps(item)).collect();
        for item in &items {
            if let Item::Use(item) = item {
                scope.uses(&item.tree, &mut Vec::new(), &mut source);
            }
        }
        for item in items {
            if !matches!(item, Item::Use(_)) {
                scope.paths(item.to_token_stream(), &mut source);
            }
        }
        source
    }

    /// Whether an item is more than a test. The lines of one that is not are cut.
    fn keeps(&mut self, item: &Item) -> bool {
        let is_test = attributes(item).iter().any(|attribute| {
            attribute.path().is_ident("cfg") && asks_for_tests(attribute.to_token_stream())
        });
        if is_test {
            let span = item.span();
            self.cut.extend(span.start().line..=span.end().line);
        }
        !is_test
    }

    /// Its lines that are not tests.
    pub fn code(&self) -> impl Iterator<Item = &str> {
        let numbered = self.text.lines().zip(1_usize..);
        numbered.filter(|(_, number)| !self.cut.contains(number)).map(|(line, _)| line)
    }
}

/// Where a path is written.
struct Scope<'a> {
    module: Name,
    modules: &'a BTreeSet<Name>,
}

impl Scope<'_> {
    fn uses(&self, tree: &UseTree, before: &mut Name, source: &mut Source) {
        let mut add = |name: Name, alias: String| {
            if let Some(name) = self.absolute(&name, source) {
                source.named.insert(name.clone());
                source.aliases.insert(alias, name);
            }
        };
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.uses(&path.tree, before, source);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.uses(tree, before, source);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                add(before.clone(), before.last().cloned().unwrap_or_default());
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                add(before.iter().cloned().chain([name.clone()]).collect(), name);
            }
            UseTree::Rename(renamed) => {
                let (name, alias) = (renamed.ident.to_string(), renamed.rename.to_string());
                add(before.iter().cloned().chain([name]).collect(), alias);
            }
            UseTree::Glob(_) => add(before.clone(), "*".to_owned()),
        }
    }

    /// Paths within an item, in macros, too. The names that a `use` within a block introduces end
    /// with the block.
    fn paths(&self, tokens: TokenStream, source: &mut Source) {
        let mut name = Name::new();
        let mut colons = 0;
        let mut outside: Option<Aliases> = None;
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                // Not `use<'a>`, which says what a type captures.
                TokenTree::Ident(ident)
                    if ident == "use" && !tokens.peek().is_some_and(|next| is(next, '<')) =>
                {
                    self.end(&mut name, source);
                    let tree = tokens.by_ref().take_while(|token| !is(token, ';'));
                    // In a macro, `$crate` is this crate.
                    let tree: TokenStream = tree.filter(|token| !is(token, '$')).collect();
                    match syn::parse2::<UseTree>(tree.clone()) {
                        Ok(tree) => {
                            outside.get_or_insert_with(|| source.aliases.clone());
                            self.uses(&tree, &mut Name::new(), source);
                        }
                        Err(_) => self.paths(tree, source),
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !name.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut name, source);
                    }
                    name.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    self.end(&mut name, source);
                    self.paths(group.stream(), source);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.end(&mut name, source),
            }
            colons = 0;
        }
        self.end(&mut name, source);
        if let Some(outside) = outside {
            source.aliases = outside;
        }
    }

    fn end(&self, name: &mut Name, source: &mut Source) {
        let name = std::mem::take(name);
        if name.len() > 1
            && let Some(name) = self.absolute(&name, source)
        {
            source.named.insert(name);
        }
    }

    /// `name` from the root of this crate, if it is of this crate.
    fn absolute(&self, name: &[String], source: &Source) -> Option<Name> {
        let (first, rest) = name.split_first()?;
        let join = |base: &[String]| base.iter().chain(rest).cloned().collect();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some(join(&self.module)),
            "super" => {
                let above = rest.iter().take_while(|name| *name == "super").count();
                let base = &self.module[..self.module.len().saturating_sub(above + 1)];
                Some(base.iter().chain(&rest[above..]).cloned().collect())
            }
            _ => {
                let child: Name = self.module.iter().chain([first]).cloned().collect();
                match source.aliases.get(first) {
                    _ if self.modules.contains(&child) => Some(join(&child)),
                    Some(target) => Some(join(target)),
                    None => None,
                }
            }
        }
    }
}

/// `policy/breaker/mod.rs` is the module `policy::breaker`, and `lib.rs` the root.
fn module_of(path: &Path) -> Name {
    let mut name: Name =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if name.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        name.pop();
    }
    name
}

fn is_test(path: &Path) -> bool {
    let parts = ["tests", "tests.rs", "model.rs", "fuzzing", "fuzzing.rs"];
    path.iter().any(|part| parts.iter().any(|name| part == *name)) || path == Path::new("main.rs")
}

fn is(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// Whether a `cfg` asks for `test`. One that asks for `not(test)` is of the product.
fn asks_for_tests(tokens: TokenStream) -> bool {
    let mut is_negated = false;
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => {
            is_negated = ident == "not";
            ident == "test"
        }
        TokenTree::Group(group) => !is_negated && asks_for_tests(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => {
            is_negated = false;
            false
        }
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
