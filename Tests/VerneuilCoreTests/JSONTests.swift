import FormatTestSupport
import Testing
import VerneuilCore

@Suite struct JSONTests {
    @Test(
        "what is not JSON is refused with its place",
        arguments: [
            ("", "1:1", "the text is empty"),
            ("  \n ", "2:2", "the text is empty"),
            ("{", "1:2", "the end of the text"),
            ("{\"a\": 1} x", "1:10", "'x' after the end of the value"),
            ("{\n  // off\n}", "2:3", "a comment"),
            ("{\"a\": 1 /* b */}", "1:9", "a comment"),
            ("# yaml: 1", "1:1", "a comment"),
            ("{\"a\": 1,}", "1:8", "a comma before }"),
            ("[1, 2,\n]", "1:6", "a comma before ]"),
            ("{\"a\" 1}", "1:6", "a colon is expected after the key \"a\""),
            ("{\"a\": 1 \"b\": 2}", "1:9", "a comma or } is expected"),
            ("{'a': 1}", "1:2", "a single quote"),
            ("{a: 1}", "1:2", "'a' where a key"),
            ("{\"é\": 1, \"é\": 2}", "1:10", "the key \"é\" is given twice"),
            ("{\"a\": 1, \"\\u0061\": 2}", "1:10", "the key \"a\" is given twice"),
            ("[01]", "1:3", "a leading zero"),
            ("[1.]", "1:4", "a digit is expected"),
            ("[-]", "1:3", "a digit is expected"),
            ("[1e+]", "1:5", "a digit is expected"),
            ("[+1]", "1:2", "'+' where a value"),
            ("[NaN]", "1:2", "'N' where a value"),
            ("[tru]", "1:2", "'t' where a value"),
            ("\"abc", "1:1", "without its closing quote"),
            ("\"a\nb\"", "1:3", "the control character 10"),
            ("\"\\x\"", "1:2", "an unknown escape"),
            ("\"\\u12g4\"", "1:2", "an unknown escape"),
            ("\"\\ud800\"", "1:2", "an unknown escape"),
            ("\"\\ud800\\u0041\"", "1:2", "an unknown escape"),
            ("\"\\", "1:2", "an unknown escape"),
            ("\u{FEFF}{}", "1:1", "a byte order mark"),
        ])
    func refusal(text: String, place: String, reason: String) throws {
        let bytes = Array(text.utf8)
        let error = try #require(throws: JSONError.self) { try JSON(parsing: bytes) }
        #expect(TextPosition(of: error.offset, in: bytes).description == place)
        #expect(error.reason.contains(reason), "\(error.reason)")
    }

    @Test func bytesThatAreNotUTF8AreRefused() throws {
        for bytes: [UInt8] in [[0x22, 0xFF, 0x22], [0x22, 0xC3, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0xFF]] {
            #expect(throws: JSONError.self) { try JSON(parsing: bytes) }
        }
    }

    @Test func nestingIsBounded() throws {
        let deep = { (n: Int) in Array((String(repeating: "[", count: n) + String(repeating: "]", count: n)).utf8) }
        _ = try JSON(parsing: deep(64))
        let error = try #require(throws: JSONError.self) { try JSON(parsing: deep(100_000)) }
        #expect(error.offset == 64)
    }

    @Test func everyKindOfValueIsRead() throws {
        let text = #"{"n":null,"t":true,"f":false,"i":-12,"d":0.5e-3,"s":"a\"\\\/\b\f\n\r\té\ud83d\ude00 ü","a":[],"o":{}}"#
        guard case .object(let members) = try JSON(parsing: Array(text.utf8)).value else {
            Issue.record("not an object")
            return
        }
        let values = Dictionary(uniqueKeysWithValues: members.map { ($0.key, $0.value.value) })
        #expect(members.map(\.key) == ["n", "t", "f", "i", "d", "s", "a", "o"])
        #expect(values["n"] == .null)
        #expect(values["t"] == .bool(true))
        #expect(values["f"] == .bool(false))
        #expect(values["i"] == .number("-12"))
        #expect(values["d"] == .number("0.5e-3"))
        #expect(values["s"] == .string("a\"\\/\u{8}\u{C}\n\r\té😀 ü"))
        #expect(values["a"] == .array([]))
        #expect(values["o"] == .object([]))
    }

    @Test func textIsReadBackAsTheSameValue() throws {
        let value = JSON.object([
            "name": .string("a \"quoted\" \\ path\n\u{1} é 😀"), "count": .number(-3), "none": .null,
            "list": .array([.bool(true), .object([:]), .array([])]),
        ])
        let again = try JSON(parsing: Array(value.text.utf8))
        #expect(again.text == value.text)
        #expect(value.text.contains("\n  \"count\": -3,\n"))
    }

    /// No input may crash the parser; what it accepts, it accepts again in its own words.
    @Test func damagedTextNeverCrashes() throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        let start = Array(#"{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00",null,true],"b":{"c":false,"d":"\\"},"e":[[[]]]}"#.utf8)
        var accepted = 0
        for _ in 0..<20_000 {
            var bytes = start
            for _ in 0..<Int(random.next() % 6) {
                let at = Int(random.next() % UInt64(bytes.count))
                switch random.next() % 3 {
                case 0: bytes[at] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.remove(at: at)
                default: bytes.insert(start[Int(random.next() % UInt64(start.count))], at: at)
                }
            }
            guard let value = try? JSON(parsing: bytes) else { continue }
            accepted += 1
            let text = value.text
            #expect(try JSON(parsing: Array(text.utf8)).text == text, "seed \(seed)")
        }
        #expect(accepted > 0, "seed \(seed)")
    }
}
