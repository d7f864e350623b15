/// A point of time in UTC, to the second, as HTTP and S3 write it.
struct CivilTime: Hashable, Sendable {
    var year, month, day, hour, minute, second: Int

    /// - Parameter epoch: seconds since 1970, from year 0 to 9999.
    init(epoch: Int64) {
        var days = Int(epoch / 86_400)
        var rest = Int(epoch % 86_400)
        if rest < 0 {
            days -= 1
            rest += 86_400
        }
        (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60)
        // Years that begin in March put the leap day last, in cycles of 400 years (146,097 days).
        days += 719_468
        let cycle = (days >= 0 ? days : days - 146_096) / 146_097
        let dayOfCycle = days - cycle * 146_097
        let yearOfCycle = (dayOfCycle - dayOfCycle / 1460 + dayOfCycle / 36_524 - dayOfCycle / 146_096) / 365
        let dayOfYear = dayOfCycle - (365 * yearOfCycle + yearOfCycle / 4 - yearOfCycle / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shifted + 2) / 5 + 1
        month = shifted < 10 ? shifted + 3 : shifted - 9
        year = yearOfCycle + cycle * 400 + (month <= 2 ? 1 : 0)
    }

    /// Seconds since 1970.
    var epoch: Int64 {
        let year = month <= 2 ? self.year - 1 : self.year
        let cycle = (year >= 0 ? year : year - 399) / 400
        let yearOfCycle = year - cycle * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfCycle = yearOfCycle * 365 + yearOfCycle / 4 - yearOfCycle / 100 + dayOfYear
        let days = cycle * 146_097 + dayOfCycle - 719_468
        return Int64(days) * 86_400 + Int64(hour * 3600 + minute * 60 + second)
    }

    /// "20130524T000000Z"
    var basic: String { "\(date)T\(pad(hour, 2))\(pad(minute, 2))\(pad(second, 2))Z" }

    /// "20130524"
    var date: String { "\(pad(year, 4))\(pad(month, 2))\(pad(day, 2))" }

    /// Reads "2013-05-24T00:00:00Z", also with a fraction or an offset such as +01:00.
    init?(iso8601 text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count >= 20, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"),
            bytes[10] | 0x20 == UInt8(ascii: "t") || bytes[10] == UInt8(ascii: " "),
            bytes[13] == UInt8(ascii: ":"), bytes[16] == UInt8(ascii: ":"),
            let year = number(bytes[0..<4]), let month = number(bytes[5..<7]), let day = number(bytes[8..<10]),
            let hour = number(bytes[11..<13]), let minute = number(bytes[14..<16]), let second = number(bytes[17..<19]),
            let time = CivilTime(year, month, day, hour, minute, second)
        else { return nil }
        var rest = bytes[19...]
        if rest.first == UInt8(ascii: ".") { rest = rest.dropFirst().drop { isDigit($0) } }
        guard let sign = rest.first else { return nil }
        if sign | 0x20 == UInt8(ascii: "z"), rest.count == 1 {
            self = time
            return
        }
        let offset = rest.dropFirst().filter { $0 != UInt8(ascii: ":") }
        guard sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-"), offset.count == 4,
            let hours = number(offset[0..<2]), let minutes = number(offset[2..<4])
        else { return nil }
        let seconds = Int64(hours * 3600 + minutes * 60)
        self.init(epoch: time.epoch - (sign == UInt8(ascii: "-") ? -seconds : seconds))
    }

    /// Reads the Date header, "Fri, 24 May 2013 00:00:00 GMT".
    init?(httpDate text: String) {
        let parts = text.split(separator: " ")
        guard parts.count == 6, parts[5] == "GMT" || parts[5] == "UTC",
            let day = number(parts[1].utf8), let month = Self.months.firstIndex(of: parts[2].lowercased()),
            let year = number(parts[3].utf8)
        else { return nil }
        let clock = parts[4].split(separator: ":").map { number($0.utf8) }
        guard clock.count == 3, let hour = clock[0], let minute = clock[1], let second = clock[2],
            let time = CivilTime(year, month + 1, day, hour, minute, second)
        else { return nil }
        self = time
    }

    private init?(_ year: Int, _ month: Int, _ day: Int, _ hour: Int, _ minute: Int, _ second: Int) {
        guard (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second < 61 else { return nil }
        (self.year, self.month, self.day, self.hour, self.minute, self.second) = (
            year, month, day, hour, minute, second
        )
    }

    private static let months = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ]
}

private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

private func number(_ digits: some Collection<UInt8>) -> Int? {
    guard (1...9).contains(digits.count), digits.allSatisfy(isDigit) else { return nil }
    return digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
}

private func pad(_ value: Int, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}
