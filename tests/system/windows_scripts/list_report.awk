# Counts the jobs of `bitsadmin /list` by state, as reports for the Windows tool do it: the row begins with a GUID in
# braces, the name stands in single quotes, and the rest are columns from the right.
/^\{[0-9A-F]+-[0-9A-F]+-[0-9A-F]+-[0-9A-F]+-[0-9A-F]+\} '/ {
    seen++
    states[$(NF - 6)]++
    bytes += $(NF - 2)
    if ($NF == "UNKNOWN") unknown++
    name = $0
    sub(/^[^']*'/, "", name)
    sub(/'[^']*$/, "", name)
    print "job " name " is " $(NF - 6) ": files " $(NF - 5) " of " $(NF - 3) ", bytes " $(NF - 2) " of " $NF
}
/^Listed [0-9]+ job\(s\)\.$/ { listed = $2 }
END {
    for (state in states) print "state " state " " states[state] | "sort"
    close("sort")
    print "unknown " unknown + 0 ", bytes " bytes + 0
    exit (seen + 0 == listed + 0 && listed != "") ? 0 : 1
}
