module hello

go 1.19

require einhorn v0.1.0

replace einhorn => ../../sdk/go
