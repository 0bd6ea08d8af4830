//! Writes `conf/gateway.binpb` from `conf/gateway.proto`: `make descriptors`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["conf"])?;
    compiler.include_imports(true).open_file("gateway.proto")?;
    std::fs::write("conf/gateway.binpb", compiler.encode_file_descriptor_set())?;
    Ok(())
}
