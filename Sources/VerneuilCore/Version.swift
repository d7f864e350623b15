/// This program's version: semantic versioning, see CHANGELOG.md.
public enum Version {
    public static let description = "0.1.0"
}
