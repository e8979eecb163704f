# cmake -DINPUT=index.html -DOUTPUT=page.cc -P embed.cmake: a file as a C++ array.
file(READ "${INPUT}" hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR bytes "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" text "${hex}")
# Short lines: a hexadecimal escape ends with its line's literal.
string(REGEX REPLACE "((\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f])(\\\\x[0-9a-f][0-9a-f]))" "    \"\\1\"\n" text "${text}")
string(REGEX REPLACE "\n((\\\\x[0-9a-f][0-9a-f])+)$" "\n    \"\\1\"\n" text "${text}")
file(WRITE "${OUTPUT}" "#include <cstddef>\n\nnamespace hgrn2 {\n\nextern const char* const kPlaygroundPage;\nextern const size_t kPlaygroundPageBytes;\nconst char* const kPlaygroundPage =\n${text};\nconst size_t kPlaygroundPageBytes = ${bytes};\n\n}  // namespace hgrn2\n")
