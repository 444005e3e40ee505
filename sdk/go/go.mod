module einhorn

go 1.19
